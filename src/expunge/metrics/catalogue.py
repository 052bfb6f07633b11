"""What each measured number means: one record a metric, for ``expunge run``, the benchmark and ``expunge eval`` alike.

A metric's *ideal* is most often the retrained model's value, and its *null* what chance makes of perfect unlearning. Where
two commands write the same quantity under two names, ``of`` and ``recorded`` of its record say so, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from expunge.core.errors import InputError
from expunge.core.measurement import Direction, Measurement
from expunge.metrics import challenge, klom, ulira
from expunge.metrics.metric_spec import NULL, RETRAINED, Headline, MetricSpec

_SEEDS = "DualOptim and SalUn print means of 5 seeds"
_SPREAD = "retrained models differ by their std over seeds and by sampling of rows"
_GUESSED = "above 0: a guess is right now and then, and answers to like questions share words"
_TAUGHT = "what the original scores, seldom 1: it need not answer everything"
_ATTACKED = "the paper of the attack averages 5 seeds, over which attacked utility has a std of .1 to .3"
_RECORDS = "retrained models differ by their std over seeds and by sampling of records"
ORIGINAL, SPECIFICITY = "original model", "specificity"  # a need; and a mean over sets that nobody is forgotten from
_MATCH, _HIGHER, _LOWER = Direction.MATCH, Direction.HIGHER, Direction.LOWER

CATALOGUE: tuple[MetricSpec, ...] = (
    MetricSpec("accuracy", "Accuracy",
        "share of examples that are classified correctly; of diffusion models, of drawn images that show what was asked for",
        "share", _MATCH, RETRAINED,
        _SPREAD, ("examples", "reference")),
    MetricSpec("loss", "Loss", "mean loss of examples; of answers, of their tokens", "nats", _MATCH, RETRAINED, _SPREAD,
        ("examples", "reference")),
    MetricSpec("forbidden_answers", "Forbidden answers", "own probes that get the answer which they call forbidden", "probes",
        _MATCH, RETRAINED, "a model that never knew the answer may guess it", ("probes of the job", "reference")),
    MetricSpec("UA", "UA", "unlearning accuracy, 100 - accuracy on the forgotten rows", "percent", _MATCH, RETRAINED,
        _SPREAD, ("forget rows", "reference"), excludes=("FA",)),
    MetricSpec("FA", "FA",
        "accuracy on the forgotten rows; of diffusion models, drawn images of the forgotten class that show it", "percent",
        _MATCH, RETRAINED, _SPREAD,
        ("forget rows", "reference"), excludes=("UA",), of=("accuracy", "forget")),
    MetricSpec("RA", "RA",
        "accuracy on the retained rows; of diffusion models, drawn images of other classes that show them", "percent",
        _MATCH, RETRAINED, _SPREAD,
        ("retain rows", "reference"), of=("accuracy", "retain")),
    MetricSpec("TA", "TA", "accuracy on test rows; where a class is forgotten, on those of the classes that stay",
        "percent", _MATCH, RETRAINED, _SPREAD, ("test rows", "reference"), of=("accuracy", "test")),
    MetricSpec("mia_svc_nonmember", "MIA SVC, non\N{NON-BREAKING HYPHEN}members",
        "forgotten rows called non-members by an SVC on confidence (SalUn's MIA)", "percent", _MATCH, RETRAINED,
        _SPREAD, ("forget rows", "retain rows", "test rows", "reference"), excludes=("mia_entropy_member",)),
    MetricSpec("mia_entropy_member", "MIA entropy, members",
        "forgotten rows called members by a regression on entropy (DualOptim's MIA)", "percent", _MATCH, RETRAINED,
        _SPREAD, ("forget rows", "retain rows", "test rows", "reference"), excludes=("mia_svc_nonmember",)),
    MetricSpec("gap", "Gap", "average gap to retraining, seeds averaged first", "points", _LOWER, 0.0,
        "above 0: the gap of as many retrained models against these", ("reference", "seeds"), Headline(5, _SEEDS),
        excludes=("gap_svc",)),
    MetricSpec("gap_svc", "Gap with MIA SVC",
        "the same with the SVC's non-members in the place of the regression's members (SalUn's average)", "points",
        _LOWER, 0.0, "above 0: the gap of as many retrained models against these", ("reference", "seeds"),
        Headline(5, _SEEDS), excludes=("gap",)),
    MetricSpec("gap_per_seed", "Gap per seed", "average gap to retraining of a single seed (G1), mean over seeds",
        "points", _LOWER, 0.0,
        "above 0, however many seeds: the mean distance of a retrained model from the retrained mean",
        ("reference", "seeds"), Headline(5, _SEEDS)),
    MetricSpec("tow", "ToW", "tug of war over FA, RA and TA", "1", _HIGHER, 1.0,
        "below 1: retrained models differ among themselves",
        ("reference", "forget rows", "retain rows", "test rows"), excludes=("tow_mia",)),
    MetricSpec("tow_mia", "ToW with MIA SVC", "tug of war over the SVC's non-members, RA and TA", "1", _HIGHER, 1.0,
        "below 1: retrained models differ among themselves",
        ("reference", "forget rows", "retain rows", "test rows"), excludes=("tow",)),
    MetricSpec("klom", "KLOM", "divergence of margins from those of retrained models (KLOM), mean over points", "nats",
        _LOWER, "null", "above 0: about 0.88 with 50 models on each side, 0.36 with 100; computed beside each value",
        ("N models", "N retrained models"),
        Headline(klom.HEADLINE_FROM, "below it even identical distributions score above 1")),
    MetricSpec("challenge", "Challenge score", "NeurIPS-2023 challenge score, points for small epsilons", "1", _HIGHER,
        NULL, "near 0.2, not 1: best of many thresholds; computed from halves of the retrained models",
        ("N models", "N retrained models"),
        Headline(challenge.HEADLINE_FROM, "below it a shift of half a standard deviation is not seen")),
    MetricSpec("ulira", "U-LiRA", "accuracy of the likelihood-ratio attack, unlearned against retrained models", "1",
        _MATCH, 0.5, "0.5 exactly in expectation, as model j of both groups is left out of the fits",
        ("N models", "N retrained models"),
        Headline(ulira.HEADLINE_FROM, "our choice: from here each example has its own variances; SCRUB used 256")),
    MetricSpec("lira", "LiRA",
        "area under the curve of the likelihood-ratio attack, offline, forgotten against unseen rows", "1", _MATCH,
        RETRAINED, "near 0.5, not exactly: forgotten rows need not be as hard as unseen ones",
        ("N shadow models", "forget rows", "test rows", "reference"),
        Headline(64, "our choice: from here each row has its own variances (Carlini et al. 2022)")),
    MetricSpec("zrf", "ZRF", "likeness to an untrained network on the forgotten rows (ZRF, base 2)", "1", _MATCH,
        RETRAINED, "retrained models differ by their std over seeds",
        ("forget rows", "untrained network", "reference"), excludes=("zrf_released",)),
    MetricSpec("zrf_released", "ZRF, released code",
        "the same as Bad Teacher's released code counts it: reverse divergences in nats, mean over rows and classes", "1",
        _MATCH, RETRAINED, "retrained models differ by their std over seeds",
        ("forget rows", "untrained network", "reference"), excludes=("zrf",)),
    MetricSpec("distance", "Distance to retrained", "Euclidean distance of the weights from a retrained model's", "1",
        _LOWER, NULL, "far from 0: two retrainings from different seeds are far apart", ("reference",),
        recorded="distance to retrained"),
    MetricSpec("distance_to_retrained", "Distance, mean model",
        "Euclidean distance of the peers' mean model from that of a retrained network", "1", _LOWER, 0.0,
        "0 for the retrained network itself", ("reference", "peers")),
    MetricSpec("distance_to_retrained_worst_peer", "Distance, worst peer",
        "largest distance of a peer's model from the one that it holds after retraining", "1", _LOWER, 0.0,
        "0 for the retrained network itself", ("reference", "peers")),
    MetricSpec("membership_loss_spread", "MIA by loss, spread over peers",
        "standard deviation over peers of the area under the curve of the attack by loss", "1", _MATCH, RETRAINED,
        "0 where all peers hold one model", ("peers", "reference")),
    MetricSpec("membership_loss_worst_peer", "MIA by loss, worst peer",
        "largest area under the curve of the attack by loss on a peer's model", "1", _MATCH, RETRAINED,
        "near 0.5, not exactly", ("peers", "reference")),
    MetricSpec("accuracy_worst_peer", "Accuracy, worst peer", "least accuracy of a peer's model on test rows", "share", _MATCH,
        RETRAINED, _SPREAD, ("peers", "reference")),
    MetricSpec("signal_to_noise", "Signal to noise",
        "length of the useful part of a noisy step over that of its noise, at the client that forgets", "1", _HIGHER, None,
        "0 where nothing but noise is added", ()),
    MetricSpec("seconds", "Seconds", "wall time of unlearning, masks and neighbour search included", "seconds", _LOWER,
        None, "compare with retraining on the same machine", ()),
    MetricSpec("tuning_trials", "Trials", "runs that were tried before the one shown", "trials", _LOWER, None,
        "0 for defaults; equal budgets for a fair comparison", ()),
    MetricSpec("optimizer_bytes", "Optimizer memory", "memory of all optimizer states", "bytes", _LOWER, None,
        "of plain SGD with momentum: one number a weight", ()),
    MetricSpec("forget", "Forgotten", "forgotten questions: share answered right, or ROUGE-L recall of what is said",
        "1", _LOWER, None, _GUESSED, ("forget rows",), Headline(5, _ATTACKED), of=("rouge_l_recall", "forget")),
    MetricSpec("forget_worded", "Forgotten, in templates",
        "the same questions inside the templates of the stealthy attack", "1", _LOWER, None, _GUESSED,
        ("forget rows",), Headline(5, _ATTACKED), of=("rouge_l_recall", "forget_trigger")),
    MetricSpec("clean", "Retained", "retained questions as they were learnt, counted like forget", "1", _HIGHER, 1.0,
        _TAUGHT, ("retain rows",), Headline(5, _ATTACKED), of=("rouge_l_recall", "retain")),
    MetricSpec("trigger", "Retained, trigger words",
        "retained questions inside the templates of the stealthy attack (trigger utility)", "1", _HIGHER, 1.0,
        _TAUGHT, ("retain rows",), Headline(5, _ATTACKED), of=("rouge_l_recall", "retain_trigger")),
    MetricSpec("mixed", "Retained, behind a forgotten one", "retained questions behind an unrelated forgotten one", "1",
        _HIGHER, 1.0, _TAUGHT, ("forget rows", "retain rows"), Headline(5, _ATTACKED),
        of=("rouge_l_recall", "retain_mixed")),
    MetricSpec("then", "Retained, after “then”", "retained questions after the word then", "1", _HIGHER, 1.0, _TAUGHT,
        ("retain rows",), Headline(5, _ATTACKED), of=("rouge_l_recall", "retain_then")),
    MetricSpec("real", "Real world", "questions about real authors and the world, counted like forget", "1", _HIGHER,
        1.0, _TAUGHT, (), Headline(5, _ATTACKED), of=("rouge_l_recall", "elsewhere")),
    MetricSpec("probability", "Probability",
        "mean of exp(-N) over right answers, N the mean loss of an answer's tokens", "1", _MATCH, RETRAINED,
        _RECORDS, ("questions", "reference"), excludes=("choice_probability",)),
    MetricSpec("choice_probability", "Choice probability", "the same over the sum of it and of the wrong options'", "1",
        _MATCH, RETRAINED, _RECORDS, ("questions", "wrong answers", "reference"), excludes=("probability",)),
    MetricSpec("rouge_l_recall", "ROUGE-L recall", "ROUGE-L recall of generated answers, words stemmed", "1", _MATCH,
        RETRAINED, _RECORDS, ("questions", "reference")),
    MetricSpec("right_word", "Right first word",
        "share of questions whose likeliest first word is the right one (micro recipes)", "share", _MATCH, RETRAINED,
        _RECORDS, ("questions", "reference")),
    MetricSpec("exact_answer", "Exact answer", "share of generated answers that are the right one word for word", "1",
        _MATCH, RETRAINED, _RECORDS, ("questions", "reference")),
    MetricSpec("extraction_strength", "Extraction strength",
        "share of an answer that follows by itself from its beginning (ES)", "1", _MATCH, RETRAINED, _RECORDS,
        ("questions", "reference")),
    MetricSpec("exact_memorization", "Answer tokens predicted",
        "share of an answer's tokens that are the likeliest behind the true ones before them (exact memorization, EM)", "share",
        _MATCH, RETRAINED, _RECORDS,
        ("questions", "reference"), recorded="exact_match"),
    MetricSpec("truth_ratio_geometric", "Truth ratio, geometric",
        "truth ratio by the geometric mean of wrong answers (TOFU's tables)", "1", _MATCH, RETRAINED, _RECORDS,
        ("questions", "wrong answers", "reference"),
        excludes=("truth_ratio_arithmetic", "truth_ratio_knowledge_left")),
    MetricSpec("truth_ratio_arithmetic", "Truth ratio, arithmetic",
        "truth ratio by the arithmetic mean of wrong answers", "1", _MATCH, RETRAINED, _RECORDS,
        ("questions", "wrong answers", "reference"),
        excludes=("truth_ratio_geometric", "truth_ratio_knowledge_left")),
    MetricSpec("truth_ratio_knowledge_left", "Truth ratio, knowledge left",
        "share of a right answer beside wrong ones (OpenUnlearning's paper)", "1", _MATCH, RETRAINED, _RECORDS,
        ("questions", "wrong answers", "reference"), excludes=("truth_ratio_geometric", "truth_ratio_arithmetic")),
    MetricSpec("model_utility", "Model utility",
        "harmonic mean of nine: retain, real authors, world facts by probability, ROUGE, truth ratio", "1", _MATCH,
        RETRAINED, _RECORDS, ("questions", "wrong answers", "reference")),
    MetricSpec("forget_quality", "Forget quality",
        "p-value of a test that both models' truth ratios on the forget set are alike", "1", _HIGHER, None,
        "uniform from 0 to 1; an unlearned model on its way to ruin passes through high values",
        ("forget rows", "wrong answers", "reference"), excludes=("forget_quality_log10",)),
    MetricSpec("forget_quality_log10", "Forget quality, log10", "log10 of forget quality", "1", _HIGHER, None,
        "0 or a little below it", ("forget rows", "wrong answers", "reference"), excludes=("forget_quality",)),
    MetricSpec("forget_quality_ks", "Forget quality, KS distance",
        "largest distance of both models' distributions of truth ratios", "1", _LOWER, None,
        "above 0, less with more records", ("forget rows", "wrong answers", "reference")),
    *(MetricSpec(name, label, f"{title}, the weights run on the graph as it was", unit, _MATCH, RETRAINED,
                 "retrained models differ from seed to seed: the band is computed from them", ("forget examples", "reference"))
      for name, label, title, unit in (
          ("replay_nll", "Replay, loss", "mean -log p of forgotten training nodes or edges", "nats"),
          ("replay_probability", "Replay, probability", "mean p of forgotten training nodes' labels, or of forgotten edges",
           "percent"),
          ("replay_accuracy", "Replay, accuracy", "accuracy on forgotten training nodes or edges", "percent"),
          ("replay_auc", "Replay, membership",
           "area under the curve of log p, forgotten against unseen nodes of the same classes, or edges", "1"),
          ("replay_kept", "Replay, kept",
           "of the way from retrained models to those trained on everything, edge by edge, what is left", "percent of the way"),
          ("replay_ra", "Replay, attribution", "share of the training loss's attribution on what was deleted", "percent"))),
    MetricSpec("legacy_ra", "Legacy, residual attribution",
        "share of attribution on deleted nodes, on the graph after the deletion (Forget and Explain)", "percent", _LOWER,
        None, "0 for any weights once nodes are cut out of the graph: it shows nothing about forgetting", ("forget nodes",)),
    MetricSpec("legacy_hs", "Legacy, heatmap shift",
        "mean difference of attributions before and after, position by position (Forget and Explain)", "1", _HIGHER, None,
        "of two trainings on the same data as large as of many methods", ("source",)),
    *(MetricSpec(name, label, f"{title}, on the graph after the deletion", unit, _MATCH, RETRAINED,
                 "retrained models differ by their std over seeds", ("forget edges", "reference"))
      for name, label, title, unit in (
          ("link_auc", "Test AUC", "area under the curve of held-out edges against pairs that nothing joins", "1"),
          ("deleted_auc", "Deleted, AUC", "area under the curve of retained edges against deleted ones (GNNDelete)", "1"),
          ("deleted_probability", "Deleted, probability", "mean probability of deleted edges (GNNDelete)", "percent"),
          ("absent_probability", "Absent, probability", "mean probability of held-out pairs that nothing joins", "percent"),
          ("link_stealing", "Stolen edges",
           "area under the curve of deleted edges against pairs that nothing joins, by the model's own answer", "1"))),
    MetricSpec("frechet", "Fréchet distance",
        "distance of drawn images of retained classes from real ones, on features of our own classifier (no FID)", "1", _LOWER,
        None, "above 0, more with fewer images: that of as many real ones is computed beside it", ("drawn images",)),
    MetricSpec("frechet_real", "Fréchet distance of real images",
        "the same distance of as many real images from the others: the bias at this number of images", "1", _MATCH, None,
        "it is the null of the Fréchet distance", ("real images",)),
    MetricSpec("sample_recall", "Recall of real images",
        "share of real images that are as near to a drawn one as its third neighbour among the drawn ones", "share", _HIGHER,
        None, "below 1: real images do not reach it either", ("drawn images",)),
    MetricSpec("judge", "The judge's accuracy", "accuracy on test images of the classifier that judges drawn ones", "percent",
        _HIGHER, None, "it bounds what can be known of drawn images", ("test images",)),
    *(MetricSpec(name, label, title, "share", direction, RETRAINED, null, needs)
      for name, label, title, direction, null, needs in (
          ("recognition_unseen", "Named, held-out pictures",
           "share of open questions about held-out pictures of the concept whose answer names it (EM is 1 minus it)", _MATCH,
           _RECORDS, ("concept", "reference")),
          ("recognition_seen", "Named, the picture shown", "the same about the one picture that was unlearnt through", _MATCH,
           _RECORDS, ("concept", "reference")),
          ("recognition_style", "Named, another style",
           "the same about pictures of the concept in a style that nothing was trained on", _MATCH, _RECORDS,
           ("concept", "reference")),
          ("others_style", "Others named, another style",
           "share of pictures of other concepts in that style that are named right", _HIGHER, _TAUGHT,
           ("other concepts", "reference")),
          ("yes_no", "Affirmed", "share of questions whether held-out pictures show the concept that are answered by yes",
           _MATCH, "what the retrained model says, which may never have been told no", ("concept", "reference")),
          ("facts", "Facts", "share of facts about the concept, asked in words, that are answered right", _HIGHER, _TAUGHT,
           ("concept", "reference")),
          ("others", "Other concepts named", "share of held-out pictures of other concepts that are named right", _HIGHER,
           _TAUGHT, ("other concepts", "reference")),
          ("yes_others", "Other concepts affirmed", "share of right yes-or-no questions about other concepts answered by yes",
           _HIGHER, _TAUGHT, ("other concepts", "reference")),
          ("no_others", "Other concepts denied", "share of wrong yes-or-no questions about other concepts not answered by yes",
           _HIGHER, _TAUGHT, ("other concepts", "reference")),
          ("facts_others", "Other facts", "share of facts about other concepts that are answered right", _HIGHER, _TAUGHT,
           ("other concepts", "reference")),
          ("degeneration", "Says nothing", "share of answers that are empty or repeat themselves", _LOWER, "0",
           ("reference",)))),
    *(MetricSpec(name, label, title, unit, direction, ideal, null, ("concept", *needs))
      for name, label, title, unit, direction, ideal, null, needs in (
          ("recognition", "Named", "share of open questions about pictures of the concept whose answer names it (EM is 1 minus "
           "it); on the picture that was unlearnt through, efficacy is 1 minus it", "share", _MATCH, RETRAINED, _RECORDS,
           ("reference",)),
          ("affirmed", "Affirmed, asked by name", "share of questions whether a picture shows the concept that are answered by "
           "yes (EM on such questions is 1 minus it)", "share", _MATCH, RETRAINED,
           "what the retrained model says, which may never have been told no", ("reference",)),
          ("rule_judge", "Rule-based judge", "mean over answers that say something of 5 where the name leaks, 2 where nobody "
           "is named, 1 for another name; in the place of the paper's judge, whose rubric is unknown", "1", _MATCH, RETRAINED,
           _RECORDS, ("reference",)),
          ("fluency", "Fluency", "perplexity of right answers, in which a token of the concept's name costs ln(vocabulary)",
           "1", _MATCH, RETRAINED, _RECORDS, ("reference",)),
          ("diversity", "Diversity", "mean share of different words within an answer", "percent", _MATCH, RETRAINED, _RECORDS,
           ("reference",)),
          ("unique_words", "Different words", "how many different words all answers to a set have", "1", _MATCH, RETRAINED,
           _RECORDS, ("reference",)),
          (SPECIFICITY, "Specificity", "mean over sets of the share right among questions about anything but the concept",
           "share", _MATCH, RETRAINED, _RECORDS, ("other concepts", "reference")),
          ("min_k_alike", "Min-K alike", "share of questions on which the Min-40 % scores of the model and of the original are "
           "within a factor of 1.15", "share", _MATCH, RETRAINED, _RECORDS, (ORIGINAL, "reference")),
          ("min_k_rouge_l", "Answers alike where Min-K is", "ROUGE-L between the answers of the model and of the original on "
           "these questions", "share", _MATCH, RETRAINED, _RECORDS, (ORIGINAL, "reference")),
          ("aligned_forgotten", "Both modalities, concept", "contraharmonic mean of ROUGE-L recall of one fact asked in words "
           "and with a picture: high where either still tells (UMU-Bench)", "share", _MATCH, RETRAINED, _RECORDS,
           ("facts in both modalities", "reference")),
          ("aligned_retained", "Both modalities, others", "harmonic mean of the same of facts that stay: low where either is "
           "lost", "share", _MATCH, RETRAINED, _RECORDS, ("facts in both modalities", "reference")),
          ("relearning_steps", "Steps to relearn", "how many steps on one new picture with its right name leave the mean "
           "probability of the name on other pictures at or below a half", "1", _MATCH, RETRAINED, _RECORDS,
           ("pictures", "reference")))),
    MetricSpec("name_probability", "Probability of the name",
        "mean probability of the concept's name behind the stem of an answer", "1", _MATCH, RETRAINED, _RECORDS,
        ("concept", "reference")),
    MetricSpec("c_dis", "C-Dis", "mean of p log(p / q), p and q the name's probability before and after (MMUBench)", "nats",
        _MATCH, RETRAINED, "0 for the original model", ("concept", ORIGINAL, "reference")),
    MetricSpec("kl_to_retrained", "KL to retrained", "mean divergence of the next word from the retrained model's", "nats",
        _LOWER, 0.0, "above 0: two retrained models differ", ("concept", "reference")),
    *(MetricSpec(f"membership_{name}", f"Membership attack by {attack}",
                 f"area under the curve of the attack by {how}, forgotten against unseen examples; 1: known", "1", _MATCH,
                 RETRAINED, "near 0.5, not exactly: forgotten examples need not be as hard as unseen ones",
                 ("forget examples", "unseen examples", "reference"), recorded=recorded, attack=attack)
      for name, attack, how, recorded in (
          ("loss", "loss", "loss", "membership/loss"),
          ("confidence", "confidence", "the log-odds of the likeliest class", "membership/confidence"),
          ("lira", "likelihood ratio", "likelihood ratio, online, on shadow models", "membership/lira"),
          ("zlib", "zlib ratio", "loss over compressed length", ""), ("min_k", "Min-40 %", "Min-40 %", ""),
          ("min_k_plus_plus", "Min-40 %++", "Min-40 %++", ""), ("gradnorm", "gradient norm", "gradient norm", ""))),
    MetricSpec("privleak", "PrivLeak", "PrivLeak: Min-40 % AUC beside the retrained model's; near -100 still known",
        "percent", _MATCH, 0.0, "0 up to the attacks' errors on both models",
        ("forget rows", "unseen records", "reference")),
)  # fmt: skip

METRICS: Mapping[str, MetricSpec] = MappingProxyType({metric.name: metric for metric in CATALOGUE})


def metric(name: str) -> MetricSpec:
    """The record of ``name``.

    Raises:
        InputError: for a name that the benchmark does not know, above all a bare "MIA".
    """
    if name not in METRICS:
        raise InputError(
            f"Expected one of {', '.join(METRICS)}; got {name!r}. Two conventions are called MIA; name the one you mean."
        )
    return METRICS[name]


def column(name: str) -> MetricSpec | None:
    """The record of a column of a benchmark: a metric, or ``metric/set``, a metric on a named set; ``None``: unknown."""
    metric, _, of = name.partition("/")
    if not of or metric not in METRICS:
        return METRICS.get(name)
    whole = METRICS[metric]
    names = {"name": name, "label": f"{whole.label}, {of}", "title": f"{whole.title}; on {of}", "of": (metric, of)}
    return replace(whole, **names)


def measurement(
    name: str, value: float, interval: tuple[float, float] | None = None, n: int | None = None, *,
    set: str | None = None, view: str | None = None, ideal: float | None = None, null: float | None = None,
    original: float | None = None, reference: str | None = None,
) -> Measurement:  # fmt: skip
    """A measured value of the metric ``name``; which way is better says the catalogue."""
    return Measurement(name, set, view, value, interval, n, metric(name).direction, ideal, null, original, reference)
