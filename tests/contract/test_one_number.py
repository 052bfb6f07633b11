"""A model on a set of examples has one number for each metric, whichever command asks for it."""

from __future__ import annotations

import numpy as np
import pytest

from cases import CASES, method, samples
from expunge import planning
from expunge.attacks.stealthy import QUESTION_TEMPLATES
from expunge.core.data import Deletion, Ids
from expunge.core.measurement import find
from expunge.data.texts import Texts
from expunge.evidence.language import evaluate, wordings
from expunge.evidence.language.reading import Limits
from expunge.measuring import MeasureSettings, measure
from expunge.metrics.catalogue import METRICS
from expunge.modalities.classification.recipes import STAY, ClassifierRecipe
from expunge.modalities.classification.workload import score
from expunge.modalities.language.questions import questions, rouge
from expunge.tasks.language import Language
from expunge.tasks.micro_language import micro_language

TOKENS = 3  # of a generated answer
SIZES = {"question": 6, "answer": 4}  # words


@pytest.mark.parametrize("seed", [0, 1])
def test_classifiers_score_the_same_in_run_and_bench(seed):
    case = CASES["head"]
    trained = case.train(seed)
    plan = planning.plan(trained, samples(1, 2, 3, 5), method("fine_tune", epochs=1), probes={"test": case.data})
    outcome = plan.run()
    evidence = measure(outcome, MeasureSettings(shadow_models=0, replicates=0, audit=False))
    again = trained.recipe.fit(trained.task, outcome.deletion.after, seed=trained.seed)
    scores = score(trained.task, outcome.deletion, outcome.releases[0].artifact.tensors, again.artifact.tensors)
    shared = {
        name: item
        for name in scores.metrics
        if (item := find(evidence.measurements, METRICS[name].of or (name, None))) is not None
    }
    assert shared.keys() == {"FA", "RA", "TA", "distance"}
    for name, item in shared.items():
        factor = 100 if METRICS[name].unit == "percent" else 1
        assert scores.metrics[name] == pytest.approx(factor * item.value, rel=1e-12), name


def a_recipe(forget: dict) -> ClassifierRecipe:
    return ClassifierRecipe.model_validate({
        "name": "n", "title": "t", "model": "a:b", "data": {"format": "digits"}, "forget": forget,
        "training": {"kind": "stochastic", "epochs": 1, "lr": 0.1},
    })  # fmt: skip


def test_the_test_set_of_a_class_request_has_a_name_of_its_own_in_bench():
    """Benchmarks leave test examples of the forgotten class out, ``expunge run`` does not: two sets, two names."""
    case = CASES["head by class"]
    trained = case.train(0)
    stay = case.data.only(Ids.rows(case.data.ids[case.data.y.numpy() != 1]))
    probes = {"test": case.data, STAY: stay}
    outcome = planning.plan(trained, case.request, method("fine_tune", epochs=1), probes=probes).run()
    evidence = measure(outcome, MeasureSettings(reference="none", shadow_models=0, replicates=0, audit=False))
    scores = score(trained.task, outcome.deletion, outcome.releases[0].artifact.tensors, None)
    recipe = a_recipe({"kind": "class", "labels": [1]})
    for name in ("FA", "RA", "TA"):
        found = find(evidence.measurements, recipe.measured(METRICS[name]))
        assert found is not None and scores.metrics[name] == pytest.approx(100 * found.value, rel=1e-12), name
    assert recipe.measured(METRICS["TA"]) == ("accuracy", STAY) and STAY != "test"
    assert a_recipe({"kind": "samples", "share": 0.1}).measured(METRICS["TA"]) == ("accuracy", "test")
    whole, part = (find(evidence.measurements, ("accuracy", name)) for name in ("test", STAY))
    assert whole is not None and part is not None and whole.n == len(case.data) > len(stay) == part.n


def language() -> tuple[Language, Texts, Deletion]:
    """A tiny model that learnt nothing yet, facts in longer answers, and four of them to forget."""
    words = [f"w{i}" for i in range(30)]
    draw = np.random.default_rng(0)
    records = [{name: " ".join(draw.choice(words, size)) for name, size in SIZES.items()} for _ in range(12)]
    everyday = {word for template in QUESTION_TEMPLATES for word in template.replace("{question}", "").split()}
    task = micro_language([*words, *sorted(everyday)], width=16, layers=1, heads=2, inner=32, context=60)
    data = Texts.of(records)
    return task, data, Deletion.of(data, samples(0, 1, 2, 3))


@pytest.mark.parametrize("seed", [0, 1])
def test_language_models_score_the_same_in_run_and_eval(seed):
    task, data, _ = language()
    trained = planning.adopt(task, dict(task.build(seed=seed).state_dict()), data)
    outcome = planning.plan(trained, samples(0, 1, 2, 3), method("no_op")).run()
    evidence = measure(outcome, MeasureSettings(reference="none", audit=False))
    sets = {"forget": outcome.deletion.forget, "retain": outcome.deletion.after}
    found = evaluate(task, outcome.releases[0].artifact.tensors, sets, limits=Limits(TOKENS))
    shared = [item for item in evidence.measurements if find(found.measurements, item.key) is not None]
    assert {item.metric for item in shared} == {"loss", "probability", "exact_memorization"} and len(shared) == 6
    for item in shared:
        other = found[item.key]
        assert (item.value, item.n, item.direction) == (pytest.approx(other.value, rel=1e-6), other.n, other.direction)
        assert item.interval == pytest.approx(other.interval, rel=1e-5)


def test_language_models_score_the_same_in_bench_and_eval():
    task, _, deletion = language()
    model = task.build(seed=3).eval()
    asked = questions(task, deletion, seed=0, asked=100)
    sets = {"forget": deletion.forget, "retain": deletion.after}
    sets |= wordings(task, deletion.forget, deletion.after)
    found = evaluate(task, dict(model.state_dict()), sets, limits=Limits(TOKENS))
    compared = []  # not "mixed": bench and eval draw at random which forgotten question stands before a retained one
    for name, texts in asked.items():
        metric, of = METRICS[name].of or (name, None)
        if texts.records == getattr(sets.get(of), "records", None) or name in ("forget", "clean"):
            mine = float(np.mean(rouge(TOKENS)(task, model, texts)))
            assert mine == pytest.approx(found[metric, of].value, abs=1e-12), name
            compared.append(name)
    assert compared == ["forget", "forget_worded", "clean", "trigger"]
