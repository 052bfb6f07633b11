"""Rehearsal 6: a second request follows the first: composition in the certificate, the ideal without all ids."""

import math

import pytest

from cases import CASES, beside_ledger, method, samples
from expunge import planning
from expunge.core.data import Ids
from expunge.core.errors import InputError, RefusedError
from expunge.measuring import MeasureSettings, measure
from expunge.privacy.gaussian import epsilon_of
from expunge.training.flat import distance as distance_of

QUICK = MeasureSettings(shadow_models=0, replicates=1, trials=40, audit=False)


@pytest.mark.parametrize("rewind", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_second_request_composes_and_is_measured_against_retraining_without_both(rewind, seed):
    case, r2d = CASES["head"], method("r2d", rewind=rewind)
    trained = beside_ledger(planning.publish(case.train(seed), case.budget, method=method("r2d", rewind=0.1)))
    first = planning.plan(trained, samples(3, 4), r2d).run()
    second = planning.plan(first.after, samples(5), r2d).run()
    evidence = measure(second, QUICK)
    certificate = evidence.outcome.certificate
    assert first.after.data.digest == case.data.without(Ids.rows([3, 4])).digest
    assert certificate.parameters["forget"] == 3
    assert (certificate.parameters["releases_before"], certificate.parameters["mu_before"]) == (1, first.certificate.mu)
    assert certificate.composed_mu == math.hypot(first.certificate.mu, certificate.mu)
    assert certificate.epsilon == epsilon_of(certificate.composed_mu, 1e-5) >= certificate.release_epsilon
    assert certificate.verdict == "certified" and certificate.epsilon <= case.budget.epsilon
    assert second.after.removed["row"].tolist() == [3, 4, 5] and len(second.after.spent) == 2
    everything = case.recipe.fit(case.task, case.data.without(Ids.rows([3, 4, 5])), seed=seed)
    assert evidence.reference == "retrained" and evidence.private["distance"] <= certificate.sensitivity
    if rewind == 1.0:
        assert evidence.private["distance"] == 0  # K = T forgets both requests exactly
    assert evidence.private["distance"] == distance_of(second.after.state, everything.artifact.tensors)
    assert evidence["loss/retain"].ideal is not None and evidence["loss/retain"].n == 57


def test_an_id_that_went_already_leaves_nothing_to_forget_and_a_third_request_meets_the_capacity():
    case, r2d = CASES["head"], method("r2d", rewind=0.5)
    after = planning.plan(case.publish(), samples(3, 4, 5), r2d).run().after
    with pytest.raises(InputError, match="matches only what was removed already"):
        planning.plan(after, samples(3), r2d)
    assert planning.plan(after, samples(3, 6), r2d).deletion.ids["row"].tolist() == [6]  # of two ids one went already
    with pytest.raises(
        RefusedError, match=r"records removed to 7; the published capacity is 6.*Eligible here: retrain"
    ):
        planning.plan(after, samples(6, 7, 8, 9), r2d)
    fresh = planning.plan(after, samples(6, 7, 8, 9), method("retrain")).run().after  # retraining resets
    assert not fresh.spent and not len(fresh.removed) and fresh.fact("rows") == 53
    assert planning.plan(fresh, samples(10, 11), r2d).run().certificate.parameters["rows"] == 53
