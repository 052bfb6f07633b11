"""Metrics of language models. Golden values: recomputed from TOFU's published per-sample logs (LLM spec 5.5, check A2)."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from scipy import stats

from expunge.core.errors import ExtraMissingError, InputError
from expunge.metrics.intervals import bootstrap
from expunge.metrics.language import (
    ARITHMETIC,
    GEOMETRIC,
    LEFT,
    SetScores,
    TruthRatios,
    answer_probability,
    choice_probability,
    forget_quality,
    harmonic_mean,
    model_utility,
    truth_ratio,
)
from expunge.metrics.language_text import ngram_entropy, rouge_l, token_entropy

LLAMA, LLAMA_90, LLAMA_95 = "llama2-7b_full_wd0.01", "llama2-7b_retain90_wd0.01", "llama2-7b_retain95_wd0.01"
PHI, PHI_90 = "phi_full_wd0.01", "phi_retain90_wd0.01"
FILES = {
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
    "forget": "eval_log_forget.json",
}


@pytest.fixture(scope="session")
def logs(real_data):
    """By model and set, the columns of a log as arrays (texts as lists), items in one order."""
    root, found = real_data("tofu_eval_logs") / "tofu_eval_logs", {}

    def column(values):
        rows = [values[key] for key in sorted(values, key=int)]
        return rows if isinstance(rows[0], list) and isinstance(rows[0][0], str) else np.array(rows)

    def load(model):
        if model not in found:
            content = json.loads((root / f"{model}.json").read_text(encoding="utf-8"))
            found[model] = {
                name: {key: column(value) for key, value in content[file].items()} for name, file in FILES.items()
            }
        return found[model]

    return load


def ratios(log, definition=GEOMETRIC):
    return truth_ratio(log["avg_paraphrased_loss"], log["average_perturb_loss"], definition)


def scores(log, name, definition):
    nll, wrong = log["avg_gt_loss"], log["average_perturb_loss"]
    probability = answer_probability(nll) if name == "retain" else choice_probability(nll, wrong)
    return SetScores(probability, log["rougeL_recall"], ratios(log, definition))


def utility(logs, model, definition=GEOMETRIC):
    return model_utility({name: scores(logs(model)[name], name, definition) for name in FILES if name != "forget"})


def test_check_a1_the_floor_of_forget_quality():
    for n, floor in ((400, 1.0636e-239), (200, 1.9426e-119), (40, 1.8603e-23)):
        low, high = TruthRatios(GEOMETRIC, np.linspace(0, 1, n)), TruthRatios(GEOMETRIC, np.linspace(2, 3, n))
        found = forget_quality(low, high)
        assert found.p == pytest.approx(floor, rel=1e-4, abs=0) == found.floor
        assert found.log10_p == pytest.approx(np.log10(floor), abs=1e-4) and found.separated
        same = forget_quality(low, low)
        assert (same.p, same.log10_p, same.statistic, same.separated) == (1.0, 0.0, 0.0, False)


def test_the_floor_of_other_sizes_and_beyond_the_smallest_number():
    for n, m in ((3, 2), (5, 5), (300, 200)):
        found = forget_quality(TruthRatios(LEFT, np.arange(n) / n), TruthRatios(LEFT, 2 + np.arange(m) / m))
        assert (
            found.p
            == pytest.approx(stats.ks_2samp(np.arange(n), n + np.arange(m)).pvalue)
            == pytest.approx(found.floor)
        )
    many = forget_quality(TruthRatios(LEFT, np.zeros(2000)), TruthRatios(LEFT, np.ones(2000)))
    assert many.p == 0 and -1210 < many.log10_p < -1200
    nearly = forget_quality(
        TruthRatios(LEFT, np.arange(2000.0)), TruthRatios(LEFT, np.concatenate([[0.5], 5000 + np.arange(1999.0)]))
    )
    assert -1210 < nearly.log10_p < -300


def test_forget_quality_does_not_change_with_1_over_tr_and_needs_a_retrained_model():
    draw = np.random.default_rng(0)
    a, b = draw.lognormal(size=300), draw.lognormal(0.3, 1, 250)
    direct, inverse = (
        forget_quality(TruthRatios(GEOMETRIC, x), TruthRatios(GEOMETRIC, y)) for x, y in ((a, b), (1 / a, 1 / b))
    )
    assert direct == inverse and (direct.n, direct.m) == (300, 250)
    assert forget_quality(TruthRatios(GEOMETRIC, a), None) is None
    with pytest.raises(InputError, match="one definition"):
        forget_quality(TruthRatios(GEOMETRIC, a), TruthRatios(ARITHMETIC, b))


@pytest.mark.parametrize(
    "model, geometric, arithmetic",
    [
        (LLAMA, 0.6227, 0.5859),
        (LLAMA_90, 0.6137, 0.5752),
        (LLAMA_95, 0.6006, 0.5613),
        (PHI, 0.5221, 0.5034),
        (PHI_90, 0.5320, 0.5130),
    ],
)  # geometric: the specification's; of the arithmetic ones it has the first
def test_check_a2_model_utility_of_the_published_logs(logs, model, geometric, arithmetic):
    found = utility(logs, model)
    assert found.value.value == pytest.approx(geometric, abs=5e-5) and found.definition == GEOMETRIC
    assert utility(logs, model, ARITHMETIC).value.value == pytest.approx(arithmetic, abs=5e-5)


def test_check_a2_the_nine_parts(logs):
    parts = utility(logs, LLAMA).parts
    for name, published in {
        "real_authors": (0.4555, 0.9330, 0.5962),
        "world_facts": (0.4186, 0.8825, 0.5390),
        "retain": (0.9895, 0.9857, 0.4747),
    }.items():
        assert parts[name] == pytest.approx(published, abs=5e-5), name


@pytest.mark.parametrize(
    "model, retrained, p, statistic",
    [
        (LLAMA, LLAMA_90, 1.834e-21, 0.39667),
        (PHI, PHI_90, 2.194e-16, 0.34667),
        (LLAMA, LLAMA_95, 6.504e-16, 0.38),
    ],
)
def test_check_a2_forget_quality_of_the_published_logs(logs, model, retrained, p, statistic):
    found = forget_quality(ratios(logs(model)["forget"]), ratios(logs(retrained)["forget"]))
    assert found.p == pytest.approx(p, rel=3e-4, abs=0) and found.statistic == pytest.approx(statistic, abs=5e-6)
    assert forget_quality(ratios(logs(model)["forget"]), ratios(logs(model)["forget"])).p == 1.0
    other = [ratios(logs(name)["forget"], ARITHMETIC) for name in (model, retrained)]
    assert forget_quality(*other).p != pytest.approx(p, rel=0.1, abs=0), "definitions do not compare"


def test_check_a2_the_logged_ratio_and_normalised_loss_are_ours(logs):
    for model in (LLAMA, PHI_90):
        for name in FILES:
            log = logs(model)[name]
            assert ratios(log).values == pytest.approx(log["truth_ratio"], rel=2e-4)
            if "normalized_gt_loss" in log:
                found = choice_probability(log["avg_gt_loss"], log["average_perturb_loss"])
                assert -np.log(found) == pytest.approx(log["normalized_gt_loss"], abs=1e-9)


@pytest.mark.parametrize("model, names", [(LLAMA_95, tuple(FILES)), (PHI_90, ("real_authors", "forget"))])
def test_check_a2_rouge_recall_of_every_published_text(logs, model, names):
    pytest.importorskip("rouge_score", reason="the extra llm is not installed")
    for name in names:
        log = logs(model)[name]
        _, generated, answers = zip(*log["generated_text"], strict=True)
        assert np.array_equal(rouge_l(answers, generated), log["rougeL_recall"]), name


def test_rouge_is_the_longest_common_subsequence_of_stems():
    pytest.importorskip("rouge_score", reason="the extra llm is not installed")
    answers = ["The author's full name is Hsiao Yun-Hwa.", "a b c d", "running authors", "a b"]
    texts = ["the full name of the author is hsiao", "d c b a", "He RUNS an author!", ""]
    # the author s full name is hsiao yun hwa: "the full name is hsiao" are five of nine
    assert rouge_l(answers, texts) == pytest.approx([5 / 9, 1 / 4, 1, 0])
    assert rouge_l(answers[:1], texts[:1], "f1") == pytest.approx([2 * (5 / 9) * (5 / 8) / (5 / 9 + 5 / 8)])
    with pytest.raises(InputError, match="answer 1 is 'Слово'"):
        rouge_l(["a", "Слово"], ["a", "Слово"])
    with pytest.raises(InputError, match="a generated text for each"):
        rouge_l(["a"], [])
    with pytest.raises(InputError, match="recall, f1"):
        rouge_l(["a"], ["a"], "precision")


def test_without_the_extra_rouge_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ExtraMissingError, match=r"expunge\[llm\]"):
        rouge_l(["a"], ["a"])


def test_truth_ratio_by_each_definition():
    right, wrong = np.array([1.0, 2.0]), np.array([[2.0, 4.0], [0.5, 0.5]])
    geometric, arithmetic, left = (truth_ratio(right, wrong, name, guard=0) for name in (GEOMETRIC, ARITHMETIC, LEFT))
    assert geometric.values == pytest.approx([np.exp(-2), np.exp(1.5)])
    assert arithmetic.values == pytest.approx([(np.exp(-2) + np.exp(-4)) / 2 / np.exp(-1), np.exp(1.5)])
    assert left.values == pytest.approx(1 / (1 + geometric.values))
    assert geometric.closeness().value == pytest.approx((np.exp(-2) + np.exp(-1.5)) / 2)
    assert geometric.utility() == pytest.approx([1 - np.exp(-2), 0])
    for call in (left.closeness, left.utility):
        with pytest.raises(InputError, match="averaged as it is"):
            call()
    assert left.mean().value == pytest.approx(left.values.mean())


@pytest.mark.parametrize("guard", [0.0, 1e-10, 0.3])
def test_knowledge_left_has_the_guard_in_its_denominator(guard):
    draw = np.random.default_rng(5)
    right, wrong = draw.exponential(3, 40), draw.exponential(3, (40, 5))
    p, q = np.exp(-right), np.exp(-wrong.mean(1))
    assert truth_ratio(right, wrong, LEFT, guard).values == pytest.approx(p / (p + q + guard), rel=1e-12)
    nothing = truth_ratio(np.full(2, 90.0), np.full((2, 5), 90.0), LEFT, guard).values
    assert nothing == pytest.approx([0.5, 0.5] if guard == 0 else [0, 0], abs=1e-14)


def test_the_arithmetic_ratio_is_never_below_the_geometric_one():
    draw = np.random.default_rng(3)
    for _ in range(20):
        right, wrong = draw.exponential(2, 50), draw.exponential(2, (50, 5))
        assert (truth_ratio(right, wrong, ARITHMETIC).values >= truth_ratio(right, wrong).values * (1 - 1e-12)).all()


def test_a_collapsed_model_has_a_ratio_near_0_by_the_guard_and_stays_finite():
    nothing = truth_ratio(np.full(4, 90.0), np.full((4, 5), 95.0))
    assert nothing.closeness().value < 1e-30 and nothing.utility() == pytest.approx(np.ones(4))
    assert truth_ratio(np.full(4, 90.0), np.full((4, 5), 95.0), guard=0).values == pytest.approx(np.full(4, np.exp(-5)))
    empty = truth_ratio(np.full(4, 2000.0), np.full((4, 5), 1000.0), guard=0)
    assert empty.values[0] == np.inf and empty.closeness().value == 0 and not empty.utility().any()
    gone = truth_ratio(np.full(4, 1.0), np.full((4, 5), 5000.0))
    assert gone.closeness().value == 0 and np.isfinite(choice_probability([5000.0], [[6000.0]])).all()


def test_probability_of_a_choice_is_a_softmax():
    assert choice_probability([1.0], [[1.0, 1.0, 1.0]]) == pytest.approx([0.25])
    assert choice_probability([0.0], [[800.0]]) == pytest.approx([1.0])
    assert answer_probability([0.0, np.log(4)]) == pytest.approx([1, 0.25])


def test_the_harmonic_mean_is_0_with_a_0_and_refuses_what_would_vanish():
    assert harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)
    assert harmonic_mean([0.0, 1.0]) == 0.0
    for wrong in ([], [np.nan, 1], [-0.1, 1], [np.inf]):
        with pytest.raises(InputError):
            harmonic_mean(wrong)


def made(draw, n, spread=0.1):
    return SetScores(
        np.clip(0.6 + spread * draw.normal(size=n), 0, 1),
        np.clip(0.7 + spread * draw.normal(size=n), 0, 1),
        TruthRatios(GEOMETRIC, np.clip(0.5 + spread * draw.normal(size=n), 0, 2)),
    )


def test_the_interval_of_model_utility_is_the_bootstrap_s(logs):
    log = {name: scores(logs(LLAMA)[name], name, GEOMETRIC) for name in FILES if name != "forget"}
    tables = [np.column_stack([s.probability, s.rouge, s.truth_ratio.utility()]) for s in log.values()]

    def statistic(*drawn):
        return harmonic_mean(np.concatenate([table.mean(0) for table in drawn]))

    again = bootstrap(statistic, *tables, generator=np.random.default_rng(0), resamples=500)
    found = model_utility(log).value
    assert found.value == pytest.approx(again.value) and found.error == pytest.approx(again.error, rel=0.12)
    assert found.pair == pytest.approx(again.pair, abs=0.006)


def test_the_interval_of_model_utility_covers():
    draw, covered = np.random.default_rng(1), 0
    truth = harmonic_mean([0.6, 0.7, 0.5] * 3)
    for _ in range(200):
        sets = {name: made(draw, 60) for name in ("retain", "real_authors", "world_facts")}
        covered += model_utility(sets).value.covers(truth)
    assert covered / 200 == pytest.approx(0.95, abs=0.05)


def test_model_utility_refuses_what_does_not_belong_together():
    draw = np.random.default_rng(2)
    good = {name: made(draw, 5) for name in ("retain", "real_authors", "world_facts")}
    one = good["retain"]
    for change, words in [
        ({"retain": SetScores(one.probability, one.rouge, TruthRatios(ARITHMETIC, one.truth_ratio.values))}, "one definition"),
        ({"retain": SetScores(one.probability[:2], one.rouge, one.truth_ratio)}, "as many scores"),
        ({"retain": SetScores(one.probability * 100, one.rouge, one.truth_ratio)}, "from 0 to 1"),
        ({"retain": SetScores([np.nan] * 5, one.rouge, one.truth_ratio)}, "without NaN"),
        ({"forget": one}, "Expected scores of retain"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=words):
            model_utility(good | change)
    ruined = good | {"retain": SetScores(np.zeros(5), one.rouge, one.truth_ratio)}
    assert model_utility(ruined).value.value == 0


def test_bad_losses():
    for call, words in [
        (lambda: answer_probability([-1.0]), "Change the sign"),
        (lambda: choice_probability([1.0], [1.0]), r"as \(1, k\)"),
        (lambda: truth_ratio([1.0, 2.0], [[1.0]]), r"as \(2, k\)"),
        (lambda: truth_ratio([1.0], [[np.nan]]), "without NaN"),
        (lambda: truth_ratio([1.0], [[1.0]], "harmonic"), "geometric, arithmetic, knowledge_left"),
    ]:
        with pytest.raises(InputError, match=words):
            call()


def test_entropies_of_texts():
    words = " ".join(f"w{i}" for i in range(9))
    assert ngram_entropy([words]) == pytest.approx([(2 / 3 * np.log2(8) + 4 / 3 * np.log2(7)) / 2])
    assert ngram_entropy(["no no no no no", "one", ""]) == pytest.approx([0, 0, 0])
    assert token_entropy([words, "no no no", "a b a b", "one", ""]) == pytest.approx([1, 0, 1 / 2, 0, 0])
    with pytest.raises(InputError):
        ngram_entropy([])
