"""From what a model said to scores: of one set, of all its sets, and of a model and a retrained one together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from expunge.evidence.comparison import Score
from expunge.evidence.language.answer_scores import AnswerScores
from expunge.evidence.language.reading import PARAPHRASE, WRONG, Reading
from expunge.evidence.membership import MembershipAttack
from expunge.metrics import language, language_memory
from expunge.metrics.intervals import Interval, mean_interval, share_interval, wilson
from expunge.metrics.language import TRUTH_RATIOS, UTILITY_SETS, SetScores, TruthRatios

Readings = Mapping[str, Reading]
FORGET, RETAIN, UNSEEN = "forget", "retain", "unseen"
STILL_ANSWERED = 0.5  # mean ROUGE-L recall from which a set counts as answered: our choice
FORGOTTEN_BESIDE = 0.5  # our choice: the questions in other words keep at most this share of it


def scores_of_answers(name: str, scores: AnswerScores, level: float = 0.95) -> list[Score]:
    """Mean loss, probability and exact memorization of right answers: what one pass over a set gives.

    *Loss* is the mean negative log-probability of an answer's tokens, *probability* exp of minus it, *exact memorization* the
    share of tokens that the model would have said itself behind the true ones before them, end token aside.
    """
    n, nll = len(scores.kept), scores.nll
    same = language_memory.exact_memorization(scores.predicted, scores.labels, scores.end).values
    return [
        Score.of("loss", name, mean_interval(nll, level), n),
        Score.of("probability", name, _share(language.answer_probability(nll), level), n),
        Score.of("exact_memorization", name, _share(same, level), n),
    ]


def scores_of_set(name: str, reading: Reading, level: float) -> list[Score]:
    """Everything that one set gives by itself."""
    scores, n = reading.scores, len(reading)
    found = scores_of_answers(name, scores, level)
    shares = {
        "extraction_strength": language_memory.extraction_strength(scores.predicted, scores.labels, scores.end).values
    }
    if reading.perturbed_nll is not None and reading.paraphrase_nll is None:
        shares["choice_probability"] = language.choice_probability(scores.nll, reading.perturbed_nll)
    if reading.rouge is not None:
        shares["rouge_l_recall"] = reading.rouge
    found += [Score.of(metric, name, _share(values, level), n) for metric, values in shares.items()]
    if reading.generated:
        found.append(Score.of("exact_answer", name, wilson(int(reading.exact.sum()), n, level), n))
    for definition in TRUTH_RATIOS:
        if (ratios := truth_ratios(reading, definition)) is not None:
            found.append(
                Score.of(f"truth_ratio_{definition}", name, share_interval(_aggregate(ratios, name, level), n), n)
            )
    return found


def scores_of_sets(
    readings: Readings, retrained: Readings | None, definition: str, level: float
) -> tuple[list[Score], dict[str, str]]:
    """Model utility, and forget quality and PrivLeak, which mean something beside a retrained model only; and why one of these
    or the attacks is missing, in words.
    """
    found: list[Score] = []
    missing: dict[str, str] = {}
    if why := _no_utility(readings, definition):
        missing["model_utility"] = why
    else:
        sets = {name: _set_scores(name, readings[name], definition) for name in UTILITY_SETS}
        n = sum(len(readings[name]) for name in UTILITY_SETS)
        found.append(Score.of("model_utility", None, language.model_utility(sets, level).value, n))
    if not {FORGET, UNSEEN} <= readings.keys():
        missing["membership"] = (
            f"attacks compare the set {FORGET} with a set {UNSEEN} of records that no model has seen"
        )
    if retrained is None:
        why = "it compares with a model retrained without the forgotten records; none was given"
        return found, {**missing, "forget_quality": why, "privleak": why}
    quality = _forget_quality(readings, retrained, definition)
    leak = _privleak(readings, retrained, level)
    for name, result in (("forget_quality", quality), ("privleak", leak)):
        if isinstance(result, str):
            missing[name] = result
        else:
            found += result
    return found, missing


def truth_ratios(reading: Reading, definition: str) -> TruthRatios | None:
    """Of a set with wrong answers; beside a right one in other words, or beside the right one where there is none."""
    if reading.perturbed_nll is None:
        return None
    right = reading.scores.nll if reading.paraphrase_nll is None else reading.paraphrase_nll
    return language.truth_ratio(right, reading.perturbed_nll, definition)


def min_k(reading: Reading) -> np.ndarray:
    """Min-40 % of each answer, low for members, (n,). The loss counts the end token; what looks at single tokens does not."""
    return language_memory.min_k(_before_end(reading, reading.scores.log_probs)).values


def _before_end(reading: Reading, column: Sequence[np.ndarray]) -> list[np.ndarray]:
    return language_memory.before_end(column, reading.scores.labels, reading.scores.end)


def _min_k_plus_plus(reading: Reading) -> np.ndarray:
    scores = reading.scores
    assert scores.means is not None and scores.variances is not None  # a reading has them
    log_probs, means, variances = (
        _before_end(reading, column) for column in (scores.log_probs, scores.means, scores.variances)
    )
    return language_memory.min_k_plus_plus(log_probs, means, variances).values


def _gradnorm(reading: Reading) -> np.ndarray:
    assert reading.gradients is not None  # read where this attack is asked for
    return reading.gradients


# Low for members, each (n,): OpenUnlearning (arXiv 2506.12618). None of them has a reference model.
_LOW_FOR_MEMBERS = {
    "loss": lambda reading: reading.scores.nll,
    "zlib": lambda reading: language_memory.zlib_ratio(reading.scores.nll, reading.answers),
    "min_k": min_k,
    "min_k_plus_plus": _min_k_plus_plus,
    "gradnorm": _gradnorm,
}
ATTACKS = tuple(
    MembershipAttack(name, lambda readings, of, score=score: -score(readings[of]), heldout=UNSEEN)
    for name, score in _LOW_FOR_MEMBERS.items()
)


def incomplete(plain: Reading, worded: Reading, level: float = 0.95) -> str | None:
    """A warning where forgotten questions stay answered in some words though not in others (our rule).

    Questions count as answered from a mean ROUGE-L recall of 0.5, in other words as forgotten if they keep at most half of
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


def _no_utility(readings: Readings, definition: str) -> str:
    """Why there is no model utility; empty where there is one."""
    lacking = [name for name in UTILITY_SETS if name not in readings]
    bare = [name for name in UTILITY_SETS if name in readings and readings[name].perturbed_nll is None]
    if lacking:
        return f"it takes the sets {', '.join(UTILITY_SETS)}; {', '.join(lacking)} not given"
    if bare:
        return f"it takes wrong answers ({WRONG!r}); the records of {', '.join(bare)} have none"
    if definition == language.LEFT:
        return f"it takes a truth ratio by geometric or arithmetic mean, not {definition}"
    return ""


def _forget_quality(readings: Readings, retrained: Readings, definition: str) -> list[Score] | str:
    if FORGET not in readings:
        return f"it takes the set {FORGET}"
    mine, ideal = (truth_ratios(of[FORGET], definition) for of in (readings, retrained))
    if mine is None or ideal is None:
        return f"it takes wrong answers ({WRONG!r}, {PARAPHRASE!r}); the set {FORGET} has none"
    quality = language.forget_quality(mine, ideal)
    assert quality is not None
    values = {"": quality.p, "_log10": quality.log10_p, "_ks": quality.statistic}
    n = quality.n + quality.m
    return [Score(f"forget_quality{ending}", None, value, None, n) for ending, value in values.items()]


def _privleak(readings: Readings, retrained: Readings, level: float) -> list[Score] | str:
    """From Min-40 % attacks; the interval holds both models and the retrained one's AUC fixed."""
    if not {FORGET, UNSEEN} <= readings.keys():
        return f"it attacks with the sets {FORGET} and {UNSEEN}"
    mine, ideal = (
        language_memory.membership_auc(min_k(of[FORGET]), min_k(of[UNSEEN]), level) for of in (readings, retrained)
    )
    if ideal.value == 1:
        return "it divides by 0: the attack on the retrained model is right on every record"
    at, high, low = (language_memory.privleak(auc, ideal.value).value for auc in (mine.value, mine.low, mine.high))
    return [Score("privleak", None, at, (low, high), len(readings[FORGET]) + len(readings[UNSEEN]))]


def _share(values: np.ndarray, level: float) -> Interval:
    return share_interval(mean_interval(values, level), len(values))


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
