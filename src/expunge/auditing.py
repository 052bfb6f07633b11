"""Audits that train and run a method again: evidence that one release cannot give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from expunge import planning
from expunge.core.data import Ids
from expunge.core.digest import keyed_hash
from expunge.core.keys import audit_key
from expunge.core.measurement import Check
from expunge.core.method import Outcome, Watch, silent
from expunge.core.request import Request, Target
from expunge.evidence import refutation
from expunge.evidence.outputs import example_losses
from expunge.methods import registry


def chosen_by_key(request: str) -> int:
    """The seed of everything an audit of ``request`` chooses: HMAC of its id under the audit key, so that nobody steers it."""
    return int(keyed_hash(audit_key(), ["audit", request])[:16], 16)


def one_run_audit(outcome: Outcome, *, watch: Watch = silent) -> list[Check]:
    """Toss a coin for each of a few canaries, train with those that win, forget them, and guess which they were.

    Canaries that lose are never trained on: then every outcome of the coins should look like a model retrained without
    any canary, and a guess that succeeds speaks against the certificate. (Were the losers kept in training instead, a
    perfect retraining could be told apart too.) As many canaries as the published capacity, so that whatever the coins say
    stays within what was promised. Costs one training and one unlearning; the models are thrown away.

    Returns:
        A check of each view; none where there is no finite certificate under a published budget to refute, or the method
        is not in the registry and so cannot be run again from its record.

    Formal guarantee: if all certificates of the run are true, one of them is refuted with probability at most 5 % (Steinke
    et al. 2023, arXiv 2305.08846; the level is shared among the views).
    """
    before, certificate, examples = outcome.before, outcome.certificate, outcome.deletion.before
    budget, recipe = before.budget, before.recipe
    if certificate is None or budget is None or recipe is None or before.spent or not np.isfinite(certificate.epsilon):
        return []
    if not {outcome.method["name"], budget.method["name"]} <= registry.targets().keys():
        return []
    generator = np.random.default_rng(chosen_by_key(str(outcome.request["id"])))
    canaries = np.sort(generator.choice(examples.ids, min(budget.capacity, len(examples) - 1), replace=False))
    inserted = generator.random(len(canaries)) < 0.5
    if len(canaries) < 2 or not inserted.any():
        return []
    method = registry.make(outcome.method["name"], outcome.method["settings"])
    trained = recipe.fit(before.task, examples.without(Ids.rows(canaries[~inserted])), seed=before.seed, watch=watch)
    fresh = replace(budget, sigma=budget.sigma if budget.by_hand else None, by_hand=False, method={})
    fixed_by = registry.make(budget.method["name"], budget.method["settings"])
    published = planning.publish(trained, fresh, method=fixed_by)
    request = Request("audit", (Target("samples", {"ids": canaries[inserted].tolist()}),))
    releases = planning.plan(published, request, method, watch=watch).run().releases
    guessed = {"canaries": examples.only(Ids.rows(canaries))}
    promised, checks = budget.epsilon or certificate.epsilon, []
    for release in releases:
        scores = -example_losses(before.task, release.artifact.tensors, guessed)["canaries"]
        check = refutation.one_run_audit(
            inserted.tolist(), scores.tolist(), len(canaries), promised, budget.delta, refutation.LEVEL / len(releases)
        )
        checks.append(replace(check, view=release.view if len(releases) > 1 else None))
    return checks
