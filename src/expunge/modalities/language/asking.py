"""What a job for a language model asks to be forgotten, in which words, and how much of it the model can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from expunge.core.data import Deletion, Ids
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.core.texts import Record
from expunge.data.texts import Texts, left_out
from expunge.modalities.language.config import LanguageJob
from expunge.modalities.language.matching import matched, wording_of
from expunge.modalities.language.opening import Files
from expunge.tasks.language import Language


def asked_of(job: LanguageJob, data: Texts, asked: list[Record] | None) -> tuple[Request, Texts | None]:
    """The request, and the forgotten records as it words them where it has words of its own.

    Raises:
        InputError: for both or neither of targets and records, a wording without targets, or records that mean nothing.
    """
    settings = job.request
    given = [name for name in ("targets", "records", "wording") if getattr(settings, name)]
    if given not in (["targets"], ["records"], ["targets", "wording"]):
        raise InputError(
            "Expected request.targets, with or without request.wording, or request.records alone, which are in the request's "
            f"own words already; got {', '.join(given) or 'none of them'}."
        )
    if settings.records is not None:
        assert asked is not None
        positions, wording = matched(asked, data, settings.records.name)
        return settings.asked([Target("samples", {"ids": data.ids[positions].tolist()})]), wording
    request = settings.asked()
    if settings.wording is None:
        return request, None
    assert asked is not None
    return request, wording_of(asked, Deletion.of(data, request).forget, settings.wording)


@dataclass(frozen=True)
class Fitted:
    """Records as the context lets them be.

    Attributes:
        sets: the named sets, without what was left out.
        dropped, shortened: ids of training records that have no room, and that lose the end of their answer.
        note: a sentence on what that took away (empty: nothing).
    """

    sets: Mapping[str, Texts]
    dropped: Ids
    shortened: Ids
    note: str


def fitted(job: LanguageJob, task: Language, files: Files, own: Ids) -> Fitted:
    """Hold the records against the context: ``data.too_long`` says what becomes of those that do not fit, and
    ``request.too_long`` of those among them that are to be forgotten.

    Args:
        own: ids that the request matches.

    Raises:
        InputError: where some are too long and the job does not say ``cut``; where no record is left; or for records of
            the request whose questions leave no room for an answer: nothing could be forgotten through them.
    """
    context, kept, notes = task.prompts.context, {}, []
    dropped = shortened = Ids.none()
    for name, texts in {"data": files.data, **files.sets}.items():
        kept[name], found = task.fitting(texts)
        if not found.dropped and not found.cut:
            continue
        counts = _counts(found.dropped, found.cut, len(texts), context)
        if job.data.too_long == "refuse":
            raise InputError(
                f"Expected records that fit the context; in {name}, {counts}. Take a larger model.context, shorten them, or "
                "set data.too_long: cut to leave out the first and cut the second."
            )
        notes.append(f"In {name}, {counts}.")
        if name == "data":
            dropped, shortened = left_out(texts, kept[name]), Ids.rows(texts.ids[list(found.shortened)])
    if len(harmed := (dropped | shortened) & own):
        counts = _counts(len(dropped & own), len(shortened & own), len(own), context)
        if job.request.too_long == "refuse":
            raise InputError(
                f"Expected a model whose context holds what it is to forget; of the forget set, {counts}: {len(harmed)} would "
                "be forgotten in part or not at all. Take a larger model.context, or set request.too_long: cut."
            )
        notes.append(f"Of the forget set, {counts}: what was left out or cut was not forgotten here.")
    if files.asked is not None and (lost := task.prompts.fitting(files.asked).dropped):
        raise InputError(
            f"Expected questions that leave room for an answer in {context} tokens; {lost} of the {len(files.asked)} "
            "records of the request leave none. Take a larger model.context, or shorten them."
        )
    kept.pop("data")
    return Fitted(kept, dropped, shortened, " ".join(notes))


def _counts(dropped: int, cut: int, of: int, context: int) -> str:
    return (
        f"{dropped} of {of} records leave no room for an answer in {context} tokens, and {cut} lose the end of theirs"
    )
