"""Rehearsal 5: a model that was trained elsewhere: whatever is measured, nothing stands beside it, and that is said."""

import numpy as np
import pytest

from cases import CASES, method, samples
from expunge import planning
from expunge.core.certificate import Verdict
from expunge.core.data import Deletion
from expunge.core.measurement import UNDECIDABLE
from expunge.measuring import MeasureSettings, measure


@pytest.mark.parametrize("name", ["fine_tune", "gradient_ascent", "noisy_fine_tune"])
@pytest.mark.parametrize("seed", [0, 1])
def test_an_adopted_model_gets_numbers_without_ideals_and_no_verdict(name, seed):
    case = CASES["network"]
    probes = {"test": CASES["head"].data.only(Deletion.of(case.data, samples(*range(20, 40))).ids)}
    trained = planning.adopt(case.task, case.task.build(case.train(seed).artifact.tensors), case.data)
    assert trained.recipe is None and trained.trail is None and not trained.facts
    outcome = planning.plan(trained, case.request, method(name), probes=probes, seed=seed).run()
    evidence = measure(outcome, MeasureSettings(shadow_models=16))
    assert evidence.verdict == UNDECIDABLE and evidence.reference is None
    assert all(item.ideal is None and item.null is None for item in evidence.measurements)
    assert {item.agrees for item in evidence.measurements} == {None}
    assert {"accuracy/forget", "loss/retain", "membership_loss"} <= {item.name for item in evidence.measurements}
    assert "membership_lira" not in {item.name for item in evidence.measurements}  # no recipe, no shadow models
    assert all(np.isfinite(item.value) for item in evidence.measurements)
    assert evidence.cost["seconds"]["retrain"] is None and evidence.cost["gradient_evaluations"]["retrain"] is None
    if name == "noisy_fine_tune":  # nobody recorded whether the module uses dropout, or how rows were prepared
        assert outcome.certificate.verdict is Verdict.VOID
    else:
        assert outcome.certificate is None
    assert evidence.to_json()["verdict"] == UNDECIDABLE


def test_the_reference_can_be_left_out_on_purpose():
    case = CASES["head"]
    evidence = measure(case.plan(case.publish(), "r2d").run(), reference="none")
    assert evidence.verdict == UNDECIDABLE
    assert [check.name for check in evidence.checks] == ["replay", "replayed steps", "stored iterates", "fresh noise"]
