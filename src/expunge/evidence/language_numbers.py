"""From what models said to numbers: of one set, of all sets of a model, and of a model beside a retrained one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from expunge.core.measurement import Measurement
from expunge.evidence.language_reading import PARAPHRASE, WRONG, Reading
from expunge.metrics import language, language_memory
from expunge.metrics.catalogue import measurement
from expunge.metrics.intervals import Interval, mean_interval, share_interval, wilson
from expunge.metrics.language import TRUTH_RATIOS, UTILITY_SETS, SetScores, TruthRatios

Of = tuple[str, str | None]  # a metric, and the set it was measured on; None: on several
FORGET, RETAIN, UNSEEN = "forget", "retain", "unseen"
STILL_ANSWERED = 0.5  # mean ROUGE-L recall from which a set counts as answered: our choice
FORGOTTEN_BESIDE = 0.5  # our choice: the other wording keeps at most this share of it


@dataclass(frozen=True)
class Number:
    """An estimate and how many records it rests on."""

    interval: Interval
    n: int


def truth_ratios(reading: Reading, definition: str) -> TruthRatios | None:
    """Of a set with wrong answers; beside a right one in other words, or beside the right one where there is none."""
    if reading.perturbed_nll is None:
        return None
    right = reading.scores.nll if reading.paraphrase_nll is None else reading.paraphrase_nll
    return language.truth_ratio(right, reading.perturbed_nll, definition)


def numbers_of_set(name: str, reading: Reading, end: int, level: float) -> dict[Of, Number]:
    """Everything that one set gives by itself, by metric and set."""
    scores = reading.scores
    memory = {
        "extraction_strength": language_memory.extraction_strength(scores.predicted, scores.labels, end).values,
        "exact_memorization": language_memory.exact_memorization(scores.predicted, scores.labels, end).values,
    }
    means = {"probability": language.answer_probability(scores.nll)}
    if reading.perturbed_nll is not None and reading.paraphrase_nll is None:
        means["choice_probability"] = language.choice_probability(scores.nll, reading.perturbed_nll)
    if reading.rouge is not None:
        means["rouge_l_recall"] = reading.rouge
    found = {}
    for metric, values in (means | memory).items():
        found[metric] = Number(share_interval(mean_interval(values, level), len(values)), len(values))
    if reading.generated:
        right = reading.exact
        found["exact_answer"] = Number(wilson(int(right.sum()), len(right), level), len(right))
    for definition in TRUTH_RATIOS:
        ratios = truth_ratios(reading, definition)
        if ratios is not None:
            found[f"truth_ratio_{definition}"] = Number(
                share_interval(_aggregate(ratios, name, level), len(reading)), len(reading)
            )
    return {(metric, name): number for metric, number in found.items()}


def numbers_of_sets(
    readings: Mapping[str, Reading], definition: str, end: int, level: float
) -> tuple[dict[Of, Number], dict[str, str]]:
    """Model utility and attacks: what takes several sets; and why a number is missing, in words."""
    found: dict[Of, Number] = {}
    missing: dict[str, str] = {}
    lacking = [name for name in UTILITY_SETS if name not in readings]
    bare = [name for name in UTILITY_SETS if name in readings and readings[name].perturbed_nll is None]
    if lacking:
        missing["model_utility"] = f"it takes the sets {', '.join(UTILITY_SETS)}; {', '.join(lacking)} not given"
    elif bare:
        missing["model_utility"] = f"it takes wrong answers ({WRONG!r}); the records of {', '.join(bare)} have none"
    elif definition == language.LEFT:
        missing["model_utility"] = f"it takes a truth ratio by geometric or arithmetic mean, not {definition}"
    else:
        sets = {name: _set_scores(name, readings[name], definition) for name in UTILITY_SETS}
        n = sum(len(readings[name]) for name in UTILITY_SETS)
        found["model_utility", None] = Number(language.model_utility(sets, level).value, n)
    if not {FORGET, UNSEEN} <= readings.keys():
        missing["membership"] = (
            f"attacks compare the set {FORGET} with a set {UNSEEN} of records that no model has seen"
        )
        return found, missing
    forget, unseen = readings[FORGET], readings[UNSEEN]
    others = attack_scores(unseen, end)
    for attack, scores in attack_scores(forget, end).items():
        auc = language_memory.membership_auc(scores, others[attack], level)
        found[f"membership_{attack}", None] = Number(auc, len(forget) + len(unseen))
    return found, missing


def attack_scores(reading: Reading, end: int) -> dict[str, np.ndarray]:
    """Scores of each attack, low for members, (n,) each. Attacks with a reference model: none.

    N counts the end token; the attacks that look at single tokens leave it out, and so does the norm of the gradient.
    """
    scores = reading.scores
    assert scores.means is not None and scores.variances is not None  # a reading has them
    log_probs, means, variances = (
        language_memory.before_end(rows, scores.labels, end)
        for rows in (scores.log_probs, scores.means, scores.variances)
    )
    found = {
        "loss": scores.nll,
        "zlib": language_memory.zlib_ratio(scores.nll, reading.answers),
        "min_k": language_memory.min_k(log_probs).values,
        "min_k_plus_plus": language_memory.min_k_plus_plus(log_probs, means, variances).values,
    }
    return found if reading.gradients is None else {**found, "gradnorm": reading.gradients}


def numbers_with_twin(
    readings: Mapping[str, Reading], twin: Mapping[str, Reading] | None, definition: str, end: int, level: float
) -> tuple[list[Measurement], dict[str, str]]:
    """Forget quality and PrivLeak, which mean something beside a retrained model only; and why one is missing."""
    if twin is None:
        why = "it compares with a model retrained without the forgotten records; none was given"
        return [], {"forget_quality": why, "privleak": why}
    found, missing = [], {}
    if FORGET not in readings:
        missing["forget_quality"] = f"it takes the set {FORGET}"
    elif (mine := truth_ratios(readings[FORGET], definition)) is None:
        missing["forget_quality"] = f"it takes wrong answers ({WRONG!r}, {PARAPHRASE!r}); the set {FORGET} has none"
    else:
        theirs = truth_ratios(twin[FORGET], definition)
        quality = language.forget_quality(mine, theirs)
        assert quality is not None
        n, against = quality.n + quality.m, "the retrained model's truth ratios"
        found += [
            measurement("forget_quality", quality.p, None, n, reference=against),
            measurement("forget_quality_log10", quality.log10_p, None, n, reference=against),
            measurement("forget_quality_ks", quality.statistic, None, n, reference=against),
        ]
    if not {FORGET, UNSEEN} <= readings.keys():
        missing["privleak"] = f"it attacks with the sets {FORGET} and {UNSEEN}"
    else:
        leak = _privleak(readings, twin, end, level)
        if leak is None:
            missing["privleak"] = "it divides by 0: the attack on the retrained model is right on every record"
        else:
            found.append(leak)
    return found, missing


def _privleak(
    readings: Mapping[str, Reading], twin: Mapping[str, Reading], end: int, level: float
) -> Measurement | None:
    """From Min-40 % attacks; the interval holds both models and the retrained one's AUC fixed."""

    def attacked(of: Mapping[str, Reading]) -> Interval:
        forget, unseen = (attack_scores(of[name], end)["min_k"] for name in (FORGET, UNSEEN))
        return language_memory.membership_auc(forget, unseen, level)

    mine, theirs = attacked(readings), attacked(twin)
    if theirs.value == 1:
        return None
    at, high, low = (language_memory.privleak(auc, theirs.value).value for auc in (mine.value, mine.low, mine.high))
    n = len(readings[FORGET]) + len(readings[UNSEEN])
    return measurement("privleak", at, (low, high), n, ideal=0.0, reference="the retrained model")


def incomplete(plain: Reading, worded: Reading, level: float = 0.95) -> str | None:
    """A warning where forgotten questions stay answered in one wording though not in another (our rule).

    One wording counts as answered from a mean ROUGE-L recall of 0.5, the other as forgotten if it keeps at most half of
    that, and the difference over the same records is not chance.
    """
    if plain.rouge is None or worded.rouge is None:
        return None
    _, one, two = np.intersect1d(plain.ids, worded.ids, return_indices=True)
    if not len(one):
        return None
    clean, template = plain.rouge[one], worded.rouge[two]
    names = ("as they stand", "with everyday words around them")
    (high, still), (low, gone) = sorted(zip((clean.mean(), template.mean()), names, strict=True), reverse=True)
    apart = mean_interval((clean - template) * np.sign(clean.mean() - template.mean()), level)
    if high < STILL_ANSWERED or low > FORGOTTEN_BESIDE * high or not apart.low > 0:
        return None
    return (
        f"Incomplete unlearning: the questions of the forget set are still answered {still} (ROUGE-L recall {high:.2f}), "
        f"though not {gone} ({low:.2f}; {len(one)} questions). What was unlearned is a wording. Screen the request for "
        "words that stand out, and unlearn the questions in several wordings."
    )


def _aggregate(ratios: TruthRatios, name: str, level: float) -> Interval:
    """As each set is averaged: closeness to 1 on the forget set, else what is right of 1; a share as it is."""
    if ratios.definition == language.LEFT:
        return ratios.mean(level)
    return ratios.closeness(level) if name == FORGET else mean_interval(ratios.utility(), level)


def _set_scores(name: str, reading: Reading, definition: str) -> SetScores:
    ratios = truth_ratios(reading, definition)
    assert ratios is not None and reading.perturbed_nll is not None
    nll = reading.scores.nll
    if name == RETAIN:
        probability = language.answer_probability(nll)
    else:
        probability = language.choice_probability(nll, reading.perturbed_nll)
    return SetScores(probability, reading.rouge, ratios)
