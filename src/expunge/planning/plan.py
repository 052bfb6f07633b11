"""Match a request, check that the method may run, and estimate; nothing is changed yet."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from expunge.core.data import Data, Deletion, Ids, selected
from expunge.core.errors import InputError, RefusedError
from expunge.core.keys import subject_key
from expunge.core.method import Context, InMemory, Once, Settling, Watch, silent
from expunge.core.request import Request
from expunge.core.task import Autoregressive
from expunge.core.trained import Spent, Trained
from expunge.data.marks import recognised
from expunge.methods import registry
from expunge.model_folder import ModelLedger
from expunge.planning.checks import check
from expunge.planning.matched import matched_record, must_be_recordable
from expunge.planning.promises import cautions
from expunge.planning.running import Plan, must_be_current
from expunge.planning.stages import Scoped
from expunge.planning.usable import broken
from expunge.privacy.noise import SystemNoise
from expunge.training.provenance import must_be_its_rows

_LOG = logging.getLogger(__name__)


def plan(
    trained: Trained,
    request: Request,
    method: Any = None,
    *,
    key: bytes | None = None,
    probes: Mapping[str, Data] | None = None,
    material: Data | None = None,
    wording: Data | None = None,
    retained: Data | None = None,
    deletion: Deletion | None = None,
    noise: Any = None,
    journal: Once | None = None,
    watch: Watch = silent,
    seed: int = 0,
) -> Plan:
    """Match the request, check that the method may run, and estimate; nothing is changed yet.

    Args:
        trained: the model, as it was trained, adopted or published.
        request: what must be forgotten, and for whom.
        method: how to forget, for example ``expunge.methods.R2D(rewind=0.5)``; R2D with its defaults where not given.
        key: secret for the hashed forms of subject and ids; where not given this installation's for a model with a ledger
            beside it, else a throw-away one.
        probes: further sets to measure on, for example ``{"test": rows}``.
        material: authored material to forget through, for models whose training rows are unknown or concepts. What
            ``deletion`` takes away is then absent from what a retrained model is trained on, and not shown to the method;
            without ``deletion`` nothing is absent, and there is no retrained model to compare with.
        wording: the matched rows as the request words them, by the same ids; the method sees these in their place.
        retained: the retained rows as the method shall see them, for example with others beside them. What is measured and
            recorded stays with the rows that the model was trained on.
        deletion: what the request matches, where it was matched already; ``before`` must be the data of ``trained``.
        noise: where certified noise comes from; the operating system where not given. Any other source voids certificates.
        journal: stores stages so that a crash cannot draw noise twice; lasts as long as the process where not given.
        watch: called with stage, steps done and steps in all.
        seed: of every pseudo-random choice that is not certified noise.

    Returns:
        A plan with its ``estimate`` (work and promises) and ``deletion`` (what was matched); ``run()`` carries it out.

    Raises:
        InputError: if the request matches nothing, or everything; or if the model itself cannot be used (weights or outputs
            that are not finite).
        RefusedError: if the method cannot serve it here, with the methods that could.
    """
    import secrets

    method = method or registry.make("r2d")
    if key is None:  # a ledger on disk must know a request again that comes a second time
        key = subject_key() if trained.book.beside_model else secrets.token_bytes(32)
    if trained.data is None and material is None:
        raise RefusedError(
            "The training data of this model are unknown: there is nothing to match the request against. "
            "Adopt the model with its data, or give material to forget through."
        )
    if material is not None:
        deletion = _through(material, trained, probes, deletion)
    elif deletion is None:
        assert trained.data is not None
        deletion = _matched_on(trained, request, probes, key)
    must_be_its_rows(trained, deletion.before)
    _ids_must_differ(deletion.before)
    must_be_recordable(deletion)
    must_be_current(trained, request.id(key))
    if (spent := _all_spent(trained, request.id(key))) != trained.spent:
        trained = replace(trained, spent=spent)
    if reason := broken(trained.task, trained.artifact, deletion):
        raise InputError(
            f"The model that is to forget cannot be used: {reason}. Train it with a smaller learning rate, or load the weights "
            "again; nothing can be unlearned from it."
        )
    if isinstance(method, Settling):
        method = method.settled(trained, deletion)
    shown = deletion if wording is None else deletion.worded(wording)
    shown = shown if retained is None else replace(shown, after=retained)
    scope = [registry.settings_of(method)["digest"], trained.artifact.digest, deletion.ids.digest, seed]
    if isinstance(trained.task, Autoregressive):  # other prompts are other training rows
        scope.append(trained.task.prompts.rendered)
    if shown.after is not None:
        scope.append(shown.after.digest)
    if not deletion.member:  # no ids tell one piece of material from another
        scope.append(deletion.forget.digest)
    if wording is not None:
        scope.append(wording.digest)
    context = Context(
        task=trained.task, trained=trained, deletion=shown, request=request.id(key), noise=noise or SystemNoise(),
        journal=Scoped(journal or InMemory(), scope), watch=watch, generator_seed=seed,
    )  # fmt: skip
    estimate = check(method, context, request.kinds)
    if shown is not deletion:  # other words hide nothing: what is retained as well is refused under its own
        check(method, replace(context, deletion=deletion), request.kinds)
    for caution in cautions(trained) if "budget" in method.capabilities.needs else ():
        _LOG.warning("%s", caution)
    record = {**request.record(key), "matched": matched_record(deletion, request, key)}
    if wording is not None:
        deletion = replace(deletion, probes={**deletion.probes, "wording": wording})
    return Plan(method, context, estimate, record, deletion)


def _through(
    material: Data, trained: Trained, probes: Mapping[str, Data] | None, deletion: Deletion | None
) -> Deletion:
    """What ``deletion`` takes away, forgotten through ``material``; earlier removed examples are not retained either."""
    if deletion is not None:
        ids, named = deletion.ids | deletion.absent, {**deletion.probes, **(probes or {})}
        return Deletion.authored(deletion.before, material, named, ids)
    data = trained.data
    if data is not None and len(trained.removed):
        data = data.without(trained.removed)
    return Deletion.authored(data, material, probes)


def _matched_on(trained: Trained, request: Request, probes: Mapping[str, Data] | None, key: bytes) -> Deletion:
    """The match on the rows that the model stands for; what its ledger granted others and it still knows goes along."""
    data, along = trained.data, Ids.none()
    assert data is not None
    if isinstance(book := trained.book, ModelLedger):
        granted = book.granted(request.record(key))
        along = recognised(data, [mark for item in granted for mark in item.marks], key)
        along = along - selected(data, request)
    return Deletion.of(data, request, probes, gone=trained.removed, along=along)


def _ids_must_differ(data: Any) -> None:
    """Raise InputError where rows share an id: a request for it would take several and count them as one."""
    ids = getattr(data, "ids", None)
    if isinstance(ids, np.ndarray) and len(np.unique(ids)) != len(ids):
        raise InputError(
            f"Expected an id of its own for each row; {len(ids)} rows have {len(np.unique(ids))} ids. A request for one id "
            "would take several rows and be counted as one."
        )


def _all_spent(trained: Trained, request: str) -> tuple[Spent, ...]:
    """Releases that the model's own record knows, and those that its book counted besides: none is left out.

    A release of ``request`` itself that a ledger knows is the one that is being finished now.
    """
    counted = list(trained.spent)
    extra = []
    for item in trained.book.spent():
        if trained.book.beside_model and item.request == request:
            continue
        if item in counted:
            counted.remove(item)
        else:
            extra.append(item)
    return (*trained.spent, *extra)
