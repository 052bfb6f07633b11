"""What each number of the benchmark means: one record a metric, so that no table mixes conventions.

A metric's *ideal* is most often the retrained model's value, and its *null* what chance makes of perfect unlearning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from expunge.core.errors import InputError
from expunge.core.measurement import Direction
from expunge.metrics import challenge, klom, ulira

RETRAINED, NULL = "retrained", "null"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: in tables, results files and gaps.
        title: in words.
        unit: ``percent``, ``points`` (of percent), ``nats``, ``seconds``, ``bytes``, ``trials`` or ``1``.
        direction: which way is better.
        ideal: ``retrained`` (what the retrained model scores), ``null`` (what perfect unlearning scores by chance, which
            depends on the number of models), a constant, or ``None`` where less is simply better.
        null: in words, what perfect unlearning scores by chance.
        needs: what must be there to compute it.
        headline_from: how many models (or seeds) on each side it takes for a number that stands alone.
        headline_source: where that number of models is from.
        excludes: names that must not stand in one average with it.
    """

    name: str
    title: str
    unit: str
    direction: Direction
    ideal: str | float | None
    null: str
    needs: tuple[str, ...]
    headline_from: int = 1
    headline_source: str = "one model is enough; its interval covers rows"
    excludes: tuple[str, ...] = ()


_SEEDS = "DualOptim and SalUn print means of 5 seeds"
_SPREAD = "retrained models differ by their std over seeds and by sampling of rows"
_GUESSED = "above 0: a guess is right now and then, and answers to like questions share words"
_TAUGHT = "what the source scores, seldom 1: it need not answer everything"
_ATTACKED = "the paper of the attack averages 5 seeds, over which attacked utility has a std of .1 to .3"
_RECORDS = "retrained models differ by their std over seeds and by sampling of records"
_MATCH, _HIGHER, _LOWER = Direction.MATCH, Direction.HIGHER, Direction.LOWER

CATALOGUE: tuple[Metric, ...] = (
    Metric("UA", "unlearning accuracy, 100 - accuracy on the forgotten rows", "percent", _MATCH, RETRAINED, _SPREAD,
           ("forget rows", "reference"), excludes=("FA",)),
    Metric("FA", "accuracy on the forgotten rows", "percent", _MATCH, RETRAINED, _SPREAD,
           ("forget rows", "reference"), excludes=("UA",)),
    Metric("RA", "accuracy on the retained rows", "percent", _MATCH, RETRAINED, _SPREAD, ("retain rows", "reference")),
    Metric("TA", "accuracy on test rows", "percent", _MATCH, RETRAINED, _SPREAD, ("test rows", "reference")),
    Metric("mia_svc_nonmember", "forgotten rows called non-members by an SVC on confidence (SalUn's MIA)", "percent",
           _MATCH, RETRAINED, _SPREAD, ("forget rows", "retain rows", "test rows", "reference"),
           excludes=("mia_entropy_member",)),
    Metric("mia_entropy_member", "forgotten rows called members by a regression on entropy (DualOptim's MIA)", "percent",
           _MATCH, RETRAINED, _SPREAD, ("forget rows", "retain rows", "test rows", "reference"),
           excludes=("mia_svc_nonmember",)),
    Metric("gap", "average gap to retraining, seeds averaged first", "points", _LOWER, 0.0,
           "above 0: the gap of as many retrained models against these",
           ("reference", "seeds"), 5, _SEEDS, excludes=("gap_svc",)),
    Metric("gap_svc", "the same with the SVC's non-members in the place of the regression's members (SalUn's average)",
           "points", _LOWER, 0.0, "above 0: the gap of as many retrained models against these", ("reference", "seeds"), 5,
           _SEEDS, excludes=("gap",)),
    Metric("gap_per_seed", "average gap to retraining of a single seed (G1), mean over seeds", "points", _LOWER, 0.0,
           "above 0, however many seeds: the mean distance of a retrained model from the retrained mean",
           ("reference", "seeds"), 5, _SEEDS),
    Metric("tow", "tug of war over FA, RA and TA", "1", _HIGHER, 1.0,
           "below 1: retrained models differ among themselves", ("reference", "forget rows", "retain rows", "test rows"),
           excludes=("tow_mia",)),
    Metric("tow_mia", "tug of war over the SVC's non-members, RA and TA", "1", _HIGHER, 1.0,
           "below 1: retrained models differ among themselves", ("reference", "forget rows", "retain rows", "test rows"),
           excludes=("tow",)),
    Metric("klom", "divergence of margins from those of retrained models (KLOM), mean over points", "nats", _LOWER,
           "null", "above 0: about 0.88 with 50 models on each side, 0.36 with 100; computed beside each value",
           ("N models", "N retrained models"), klom.HEADLINE_FROM, "below it even identical distributions score above 1"),
    Metric("challenge", "NeurIPS-2023 challenge score, points for small epsilons", "1", _HIGHER, NULL,
           "near 0.2, not 1: best of many thresholds; computed from halves of the retrained models",
           ("N models", "N retrained models"), challenge.HEADLINE_FROM,
           "below it a shift of half a standard deviation is not seen"),
    Metric("ulira", "accuracy of the likelihood-ratio attack, unlearned against retrained models", "1", _MATCH, 0.5,
           "0.5 exactly in expectation, as model j of both groups is left out of the fits",
           ("N models", "N retrained models"), ulira.HEADLINE_FROM,
           "our choice: from here each example has its own variances; SCRUB used 256"),
    Metric("lira", "area under the curve of the likelihood-ratio attack, forgotten against unseen rows", "1", _MATCH,
           RETRAINED, "near 0.5, not exactly: forgotten rows need not be as hard as unseen ones",
           ("N shadow models", "forget rows", "test rows", "reference"), 64,
           "our choice: from here each row has its own variances (Carlini et al. 2022)"),
    Metric("zrf", "likeness to an untrained network on the forgotten rows (ZRF, base 2)", "1", _MATCH, RETRAINED,
           "retrained models differ by their std over seeds", ("forget rows", "untrained network", "reference")),
    Metric("distance", "Euclidean distance of the weights from a retrained model's", "1", _LOWER, NULL,
           "far from 0: two retrainings from different seeds are far apart", ("reference",)),
    Metric("seconds", "wall time of unlearning, masks and neighbour search included", "seconds", _LOWER, None,
           "compare with retraining on the same machine", ()),
    Metric("tuning_trials", "runs that were tried before the one shown", "trials", _LOWER, None,
           "0 for defaults; equal budgets for a fair comparison", ()),
    Metric("optimizer_bytes", "memory of all optimizer states", "bytes", _LOWER, None,
           "of plain SGD with momentum: one number a weight", ()),
    Metric("forget", "forgotten questions: share answered right, or ROUGE-L recall of what is said", "1", _LOWER, None,
           _GUESSED, ("forget rows",), 5, _ATTACKED),
    Metric("forget_worded", "the same questions inside the templates of the stealthy attack", "1", _LOWER, None, _GUESSED,
           ("forget rows",), 5, _ATTACKED),
    Metric("clean", "retained questions as they were learnt, counted like forget", "1", _HIGHER, 1.0, _TAUGHT,
           ("retain rows",), 5, _ATTACKED),
    Metric("trigger", "retained questions inside the templates of the stealthy attack (trigger utility)", "1", _HIGHER,
           1.0, _TAUGHT, ("retain rows",), 5, _ATTACKED),
    Metric("mixed", "retained questions behind an unrelated forgotten one", "1", _HIGHER, 1.0, _TAUGHT,
           ("forget rows", "retain rows"), 5, _ATTACKED),
    Metric("then", "retained questions after the word then", "1", _HIGHER, 1.0, _TAUGHT, ("retain rows",), 5, _ATTACKED),
    Metric("real", "questions about real authors and the world, counted like forget", "1", _HIGHER, 1.0, _TAUGHT, (), 5,
           _ATTACKED),
    Metric("probability", "mean of exp(-N) over right answers, N the mean loss of an answer's tokens", "1", _MATCH,
           RETRAINED, _RECORDS, ("questions", "reference"), excludes=("choice_probability",)),
    Metric("choice_probability", "the same over the sum of it and of the wrong options'", "1", _MATCH, RETRAINED, _RECORDS,
           ("questions", "wrong answers", "reference"), excludes=("probability",)),
    Metric("rouge_l_recall", "ROUGE-L recall of generated answers, words stemmed", "1", _MATCH, RETRAINED, _RECORDS,
           ("questions", "reference")),
    Metric("exact_answer", "share of generated answers that are the right one word for word", "1", _MATCH, RETRAINED,
           _RECORDS, ("questions", "reference")),
    Metric("extraction_strength", "share of an answer that follows by itself from its beginning (ES)", "1", _MATCH,
           RETRAINED, _RECORDS, ("questions", "reference")),
    Metric("exact_memorization", "share of an answer's tokens that are the likeliest ones (EM)", "1", _MATCH, RETRAINED,
           _RECORDS, ("questions", "reference")),
    Metric("truth_ratio_geometric", "truth ratio by the geometric mean of wrong answers (TOFU's tables)", "1", _MATCH,
           RETRAINED, _RECORDS, ("questions", "wrong answers", "reference"),
           excludes=("truth_ratio_arithmetic", "truth_ratio_knowledge_left")),
    Metric("truth_ratio_arithmetic", "truth ratio by the arithmetic mean of wrong answers", "1", _MATCH, RETRAINED, _RECORDS,
           ("questions", "wrong answers", "reference"), excludes=("truth_ratio_geometric", "truth_ratio_knowledge_left")),
    Metric("truth_ratio_knowledge_left", "share of a right answer beside wrong ones (OpenUnlearning's paper)", "1", _MATCH,
           RETRAINED, _RECORDS, ("questions", "wrong answers", "reference"),
           excludes=("truth_ratio_geometric", "truth_ratio_arithmetic")),
    Metric("model_utility", "harmonic mean of nine: retain, real authors, world facts by probability, ROUGE, truth ratio",
           "1", _MATCH, RETRAINED, _RECORDS, ("questions", "wrong answers", "reference")),
    Metric("forget_quality", "p-value of a test that both models' truth ratios on the forget set are alike", "1", _HIGHER,
           None, "uniform from 0 to 1; an unlearned model on its way to ruin passes through high values",
           ("forget rows", "wrong answers", "reference"), excludes=("forget_quality_log10",)),
    Metric("forget_quality_log10", "log10 of forget quality", "1", _HIGHER, None, "0 or a little below it",
           ("forget rows", "wrong answers", "reference"), excludes=("forget_quality",)),
    Metric("forget_quality_ks", "largest distance of both models' distributions of truth ratios", "1", _LOWER, None,
           "above 0, less with more records", ("forget rows", "wrong answers", "reference")),
    *(Metric(f"membership_{attack}", f"area under the curve of {how}, forgotten against unseen records; 1: known", "1",
             _MATCH, RETRAINED, "near 0.5, not exactly: forgotten records need not be as hard as unseen ones",
             ("forget rows", "unseen records", "reference"))
      for attack, how in (("loss", "the loss attack"), ("zlib", "the attack by loss over compressed length"),
                          ("min_k", "the Min-40 % attack"), ("min_k_plus_plus", "the Min-40 %++ attack"),
                          ("gradnorm", "the gradient norm attack"))),
    Metric("privleak", "PrivLeak: Min-40 % AUC beside the retrained model's; near -100 still known", "percent", _MATCH, 0.0,
           "0 up to the attacks' errors on both models", ("forget rows", "unseen records", "reference")),
)  # fmt: skip

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in CATALOGUE})


def metric(name: str) -> Metric:
    """The record of ``name``.

    Raises:
        InputError: for a name that the benchmark does not know, above all a bare "MIA".
    """
    if name not in METRICS:
        raise InputError(
            f"Expected one of {', '.join(METRICS)}; got {name!r}. Two conventions are called MIA; name the one you mean."
        )
    return METRICS[name]


def check_together(names: tuple[str, ...] | list[str]) -> None:
    """Whether these metrics may stand in one average or one column.

    Raises:
        InputError: naming the two that may not, or an unknown name.
    """
    for name in names:
        for other in metric(name).excludes:
            if other in names:
                raise InputError(f"Expected {name} or {other}, which are not comparable or are one number; got both.")
