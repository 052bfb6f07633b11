"""Run a plan, look at what came, and certify what holds."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from expunge.core.certificate import UNCHANGED, Certificate, Claim
from expunge.core.data import CountsExamples, Deletion, examples_in
from expunge.core.digest import digest_json
from expunge.core.errors import FailedError, InputError, RefusedError
from expunge.core.method import Context, Estimate, Method, Once, Outcome, Release, Unlearned, Watch
from expunge.core.trained import Artifact, Fact, Origin, Spent, Trail, Trained
from expunge.methods import registry
from expunge.model_folder import ModelLedger
from expunge.planning.figures import finite_values, peak_memory
from expunge.planning.known import known_now
from expunge.planning.matched import files_of, talks_of
from expunge.planning.observed import seen_of_theorem
from expunge.planning.publishing import coordinates, is_recorded
from expunge.planning.released import change_of, distinct, mu_of
from expunge.planning.stages import Scoped
from expunge.planning.usable import broken
from expunge.privacy.certify import Circumstances, certify, parameters_of
from expunge.privacy.composition import EarlierReleases
from expunge.privacy.theorems import OWN_NOISE, theorem
from expunge.privacy.witness import Witness, WitnessedJournal, noise_facts
from expunge.training.descent import trainable
from expunge.training.facts import model_code
from expunge.training.provenance import left_with, trained_again


def fresh_digest(data: Any) -> str:
    """The digest of rows as they are now: a tensor that was changed in place after its digest was taken is another one."""
    return type(data).of_content(data) if hasattr(type(data), "of_content") else data.digest


def must_be_current(trained: Trained, request: str) -> None:
    """Raise RefusedError unless ``trained`` is the model that the ledger beside it released last.

    An object from before that release would bring back what it removed, and would not count it.

    Args:
        request: whose own release may be on the ledger already: a run that is being finished.
    """
    if type(trained.book) is not ModelLedger:
        return
    last = trained.book.last_released(request)
    if last and last != trained.artifact.digest:
        raise RefusedError(
            f"Something was released from this model since ({trained.book.path} says so). Continue with what came of that "
            "release (outcome.after, or the model folder), and plan again."
        )


class Withheld:
    """Stands in for forgotten rows where a method declares that it does not need them: it cannot have read them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise InputError(
            "This method does not declare 'forgotten data' among its needs, so the forgotten rows are withheld from it. "
            "Declare the need, or read deletion.after and deletion.ids only."
        )

    def __len__(self) -> int:
        raise InputError("The forgotten rows are withheld from this method: it does not declare that it needs them.")


@dataclass(frozen=True)
class Plan:
    """A request that may run: what it will do, cost and promise.

    Attributes:
        method, context: what will run on what.
        estimate: cost and promises.
        record: the request's record with matched ids (hashed).
        deletion: what goes and stays; the context's is what the method sees of it (a request's own wording).
    """

    method: Method
    context: Context = field(repr=False)
    estimate: Estimate
    record: Mapping[str, Any]
    deletion: Deletion = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """What the plan comes to, JSON-like: what ``expunge plan`` prints. Nothing in it needs a run.

        It names examples by their ids and is for the operator; records hold :attr:`record` instead.
        """
        deletion, estimate = self.deletion, self.estimate
        matched = {unit: ids.tolist() for unit, ids in deletion.matched.of.items()}
        return {
            "request": {"id": self.record["id"], "kind": self.record["kind"]},
            "method": dict(registry.settings_of(self.method)),
            "matched": {"count": len(deletion.matched), "ids": matched, **talks_of(deletion), **files_of(deletion)},
            "forgotten": deletion.size,
            "absent": len(deletion.absent),
            "retained": None if deletion.after is None else len(deletion.after),
            "touched": len(deletion.touched),
            "certified": self.method.capabilities.certified,
            "promises": finite_values(estimate.promises),
            "cautions": list(estimate.cautions),
            "gradient_evaluations": estimate.gradient_evaluations,
            "retrain_gradient_evaluations": estimate.retrain_gradient_evaluations,
            "cost": finite_values(estimate.cost),
        }

    def on(self, journal: Once, watch: Watch) -> Plan:
        """The same plan, whose stages are stored in ``journal``: what was checked once is not checked again."""
        stages = self.context.journal
        assert isinstance(stages, Scoped)
        return replace(self, context=replace(self.context, journal=stages.on(journal), watch=watch))

    def published(self, trained: Trained) -> Plan:
        """The same plan on the model as it was published since, with the budget that the plan was checked with.

        Raises:
            FailedError: for a model with another budget.
        """
        if trained.budget != self.context.trained.budget:
            raise FailedError("The model was published with another budget than the plan was made for; plan again.")
        return replace(self, context=replace(self.context, trained=trained))

    def run(self) -> Outcome:
        """Forget, look at what came, certify what holds, and count the release in the model's book.

        A void result is held back and counts only where it leaves all the same, as everything.

        Raises:
            RefusedError: if something was released from the model since this was planned.
            FailedError: if the method says that it changes the model and left every tensor as it was, a control changed
                something, or what came cannot be used: weights or outputs that are not finite.
        """
        before = self.context.trained
        must_be_current(before, self.record["id"])
        before.book.begin(self.record)
        outcome = self.run_uncounted()
        first, after = outcome.releases[0], outcome.after
        if all(math.isfinite(mu_of(release)) for release in outcome.releases):
            counted = after.spent[-1] if after.spent else Spent(self.record["id"], 0, 0.0, "retrain")
            after.book.add(
                counted,
                afresh=self._starts_afresh,
                digest=first.artifact.digest,
                made_from=before.artifact.digest,
                views=outcome.digests,
            )
        return outcome

    def run_uncounted(self) -> Outcome:
        """As :meth:`run` for whoever decides later what leaves and counts it then (``jobs.carry_out``): until it is on the
        ledger, nothing of the outcome may be shown to anyone.
        """
        before = self.context.trained
        witness = Witness(self.context.noise, before.artifact.tensors)
        stages = WitnessedJournal(self.context.journal, witness)
        context = self._as_the_method_sees_it(witness, stages)
        started, memory = time.perf_counter(), peak_memory()
        result = self.method.run(context)
        seconds = time.perf_counter() - started
        change = change_of(before, result)
        self._must_have_changed(change)
        self._must_be_usable(result)
        releases = tuple(
            Release(views[0], artifact, self._certify(result, views, artifact, witness), views)
            for views, artifact in distinct(result.views)
        )
        removed = before.removed | self.deletion.ids | self.deletion.absent
        status = UNCHANGED if self.method.capabilities.leaves_weights else "fulfilled"
        after = before if status == UNCHANGED else self._after(result, releases, removed)
        if self.method.capabilities.cuts_data:  # the next request finds the data without what went
            after = replace(before, data=self.deletion.after, removed=removed)
        return Outcome(
            status=status,
            request=self.record,
            method=registry.settings_of(self.method),
            releases=releases,
            before=before,
            after=after,
            deletion=self.deletion,
            change=change,
            cost={
                "seconds": seconds,
                "gradient_evaluations": result.gradient_evaluations,
                "peak_memory_bytes": max(peak_memory(), memory),
            },
            purged=result.purged,
            remains=result.remains,
            details=result.details,
            own=registry.is_own(self.method),
            noisy=stages.last_noisy,
            seed=context.generator_seed,
            facts=self._facts(),
        )

    def _as_the_method_sees_it(self, witness: Witness, stages: WitnessedJournal) -> Context:
        """Noise and journal are watched; forgotten rows are there only for a method that says it needs them."""
        context, can = self.context, self.method.capabilities
        deletion = context.deletion
        if can.certified and "forgotten data" not in can.needs and deletion.member:
            hidden = Withheld()
            deletion = replace(deletion, before=hidden, forget=hidden)
        return replace(
            context, noise=witness, journal=stages, deletion=deletion,
            trained=replace(context.trained, data=None) if deletion is not context.deletion else context.trained,
        )  # fmt: skip

    def _must_have_changed(self, change: Mapping[str, float]) -> None:
        changed, can = any(size > 0 for size in change.values()), self.method.capabilities
        if not changed and not can.leaves_weights:
            raise FailedError(
                f"{self.method.name} declares that it changes the {can.effect} and left every tensor as it was: nothing was "
                "forgotten. Check its settings (a learning rate or a number of steps of zero)."
            )
        if changed and can.leaves_weights:
            what = "no weights" if can.cuts_data else "nothing"
            raise FailedError(f"{self.method.name} declares that it changes {what}, and the released weights differ.")

    def _must_be_usable(self, result: Unlearned) -> None:
        """Nothing is certified, counted or released that nobody could use or measure."""
        for view, artifact in result.views.items():
            if reason := broken(self.context.task, artifact, self.deletion):
                raise FailedError(
                    f"{self.method.name} made a {view} that cannot be used: {reason}. Nothing was released. Take milder "
                    "settings (a smaller learning rate, fewer steps) under a new folder, or end the request: expunge requests "
                    f"abandon {self.record['id']}."
                )

    def _certify(
        self, result: Unlearned, views: tuple[str, ...], artifact: Artifact, witness: Witness
    ) -> Certificate | None:
        if result.claim is None:
            return None
        before, deletion = self.context.trained, self.deletion
        old = [before.view(view) for view in views]
        binds = {
            "request": digest_json(dict(self.record)),
            "retained": deletion.after.digest,
            "trail": before.trail.data if before.trail else "none",
            "before": old[0].digest,
            "release": artifact.digest,
        }
        try:
            return self._certificate(result.claim, result, artifact, witness, binds, old)
        except (KeyError, TypeError) as missing:
            raise InputError(
                f"{self.method.name} claims the theorem {result.claim.theorem}, which lacks an input here ({missing}): a claim "
                "must carry every input of its theorem that the record of training does not have."
            ) from None

    def _certificate(
        self, claim: Claim, result: Unlearned, artifact: Artifact, witness: Witness, binds: Mapping[str, str],
        old: Sequence[Artifact],
    ) -> Certificate:  # fmt: skip
        before, deletion = self.context.trained, self.deletion
        on_ledger = type(before.book) is ModelLedger and before.book.promised(before.budget)
        around = Circumstances(
            budget=None if claim.theorem in OWN_NOISE else before.budget,
            earlier=EarlierReleases() if self._starts_afresh else EarlierReleases.of(before.spent, len(before.removed)),
            removed=len(before.removed | deletion.ids),
            retained=deletion.after.digest,
            changed=all(artifact.digest != each.digest for each in old),
            binds=binds,
            seen=self._seen(result, artifact, witness),
            published_first=on_ledger and before.book.published_before(self.record["id"]),
            ledger=on_ledger,
            own=registry.is_own(self.method),
            published=before.budget,
            together=len(distinct(result.views)),
        )
        return certify(claim, self._facts(), around)

    def _facts(self) -> dict[str, Fact]:
        deletion = self.deletion
        parts = (deletion.before, deletion.after, self.context.deletion.after)
        return known_now(self.context.trained, [part for part in parts if part is not None])

    def _seen(self, result: Unlearned, artifact: Artifact, witness: Witness) -> dict[str, Any]:
        """What the planner established of this run: facts that no claim can talk about."""
        assert result.claim is not None
        before, deletion = self.context.trained, self.deletion
        model, chosen = before.task.build(), theorem(result.claim.theorem)
        names = coordinates(model)
        gone, named = len(deletion.before) - len(deletion.after), examples_in(deletion.before, deletion.ids)
        rows: Any = (gone == named, "as many rows went as ids of rows were matched")
        if isinstance(deletion.before, CountsExamples):
            rows = Fact(
                gone == named, Origin.DECLARED, "more went than rows: which examples are left is the data's word"
            )
        seen: dict[str, Any] = {
            "retained_rows": rows if self._reads_only_what_it_is_given else _SOMEBODYS_RECIPE,
            "retained_unchanged": (not len(deletion.touched), "retained records that the deletion says it changes"),
            "unnoised_tensors": self._unnoised(artifact, model),
            "model_code": model_code(before.task, model),
        }
        if before.trail is not None:
            known = before.trail.data == fresh_digest(deletion.before)
            seen["trail_of_these_rows"] = (known, "digest of the rows that the trail was made from")
        if chosen.draws is not None:
            parameters = parameters_of(chosen, result.claim.parameters, before.facts)
            draws, sigma = chosen.draws(parameters)
            moved = {name: artifact.tensors[name] for name in names if name in artifact.tensors}
            state = {} if result.state is None else {n: result.state[n] for n in names if n in result.state}
            several = distinct(result.views)
            if artifact is not several[0][1]:  # the state that a run keeps is that of its first model
                state = None
            seen |= noise_facts(
                witness, names=names, draws=draws, sigma=sigma, released=moved, state=state, releases=len(several)
            )
        seen["noise_draws"] = (len(witness.draws), "counted by the planner's own wrapper around the noise")
        return {**seen, **seen_of_theorem(result.claim, before, deletion, result.views, witness.draws)}

    @property
    def _reads_only_what_it_is_given(self) -> bool:
        """Whether no code of somebody else's could have looked at the forgotten rows: a recipe may hold them in its closure."""
        own_data, before = type(self.deletion.before).__module__.startswith("expunge.data."), self.context.trained
        asks_recipe = self._starts_afresh or bool(before.views)  # of a network it says who its peers are
        return own_data and (not asks_recipe or is_recorded(before.recipe))

    def _unnoised(self, artifact: Artifact, model: Any) -> Any:
        """What is known of everything that leaves without noise."""
        before, fact = self.context.trained, self.context.trained.facts.get("start")
        moved, names = set(trainable(model)), set(artifact.tensors)
        if artifact.extra or artifact.adapter is not None or names != set(before.artifact.tensors):
            return ("more", "the release holds something besides the model's own tensors")
        fixed = sorted(names - moved)
        if not fixed:
            return ("none", "every released tensor carries noise or is what the recipe made of the retained rows")
        if fact is None:
            return ("unknown", "nobody recorded where frozen weights and buffers come from")
        same = all(torch.equal(artifact.tensors[n].cpu(), before.artifact.tensors[n].cpu()) for n in fixed)
        value = fact.value if same else "recomputed" if self._starts_afresh else "moved"
        return Fact(value, fact.origin, f"{', '.join(fixed[:3])} leave as the start made them: {fact.note}"[:200])

    @property
    def _starts_afresh(self) -> bool:
        """Whether this is our own retraining, which resets what was spent; a name alone resets nothing."""
        return type(self.method) is registry.load("retrain") and registry.is_own(self.method)

    def _after(self, result: Unlearned, releases: Sequence[Release], removed: Any) -> Trained:
        before, deletion, first = self.context.trained, self.deletion, releases[0]
        views = dict(result.views) if before.views or len(result.views) > 1 else {}
        if self._starts_afresh:  # a fresh start: nothing is spent, nothing is missing from the trail
            trail = result.trail and Trail(
                result.trail.iterates, result.trail.length, deletion.after.digest, len(deletion.after)
            )
            facts = trained_again(before.facts, deletion.after)
            return replace(
                before, artifact=first.artifact, data=deletion.after, trail=trail, facts=facts, state=result.state,
                removed=type(removed).none(), spent=(), views=views,
            )  # fmt: skip
        certificate, mu = first.certificate, max(map(mu_of, releases))  # whoever sees all views sees the weakest
        named = "" if certificate is None else str(certificate.parameters["theorem"])
        spent = (*before.spent, Spent(self.record["id"], len(removed), mu * len(releases) ** 0.5, named))
        return replace(
            before, artifact=first.artifact, data=deletion.after, trail=result.trail, state=result.state,
            removed=removed, spent=spent, views=views, facts=left_with(before.facts, deletion.after),
        )  # fmt: skip


_SOMEBODYS_RECIPE = Fact(
    True, Origin.DECLARED, "a recipe or a kind of data that is not expunge's own: its author's word"
)
