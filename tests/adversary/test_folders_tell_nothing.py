"""What may be shown tells nobody secrets: an adversary who knows both candidates guesses no better than the certificate says.

Whoever knows the un-noised weights of two worlds reads everything in the folder: files, numbers, digests, sizes. The release
itself is covered by (epsilon, delta), so from even odds he is right at most e^eps / (1 + e^eps) + delta of the time.
"""

import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load
from scipy.stats import binom

import expunge
from cases import FIXED, beside_ledger, samples
from expunge import Budget, GradientDescent, Request, Rows, Target
from expunge.core.data import Ids
from expunge.core.digest import digest_arrays, digest_json
from expunge.report import html
from expunge.report.shown import PRIVATE_BELOW, shown

from .worlds import folder_of, forget, head, measured, r2d


def data(n: int = 60) -> Rows:
    """Rows in which the forgotten one pulls as hard as any can: the bound is nearly attained."""
    generator = np.random.default_rng(0)
    x = torch.from_numpy(0.1 * generator.standard_normal((n, 2)))
    x[3] = torch.tensor([1.0, 1.0])
    y = torch.zeros(n, dtype=torch.long)
    y[3] = 1
    return Rows.of(x, y, {"patient": np.arange(n)}, preprocessing=FIXED)


def world(capacity: int = 1, epsilon: float = 1.0):
    trained = expunge.train(head(), data(), GradientDescent(steps=60, lr=1.5, l2=1e-2))
    return trained, Budget(epsilon, 1e-5, capacity)


def numbers_in(value) -> list[float]:
    if isinstance(value, bool):
        return []
    if isinstance(value, int | float):
        return [float(value)]
    if isinstance(value, dict):
        return list(itertools.chain.from_iterable(numbers_in(value[name]) for name in sorted(value)))
    if isinstance(value, list):
        return list(itertools.chain.from_iterable(numbers_in(item) for item in value))
    return []


@pytest.mark.parametrize(
    ("folders", "capacity"),
    [(20, 1), pytest.param(200, 1, marks=pytest.mark.slow), pytest.param(200, 10, marks=pytest.mark.slow)],
)
def test_two_worlds_of_folders_are_told_apart_no_better_than_certified(folders, capacity, monkeypatch):
    if folders < 200:  # drawing pages takes most of the time, and a page is a function of the record
        monkeypatch.setattr(html, "render", lambda record: f"<p>{digest_json(record)}</p>")
    trained, budget = world(capacity)
    sigma = expunge.publish(trained, budget, method=r2d()).budget.sigma
    retrained = trained.recipe.fit(trained.task, trained.data.without(Ids.rows([3])), seed=0)
    right, epsilon, seen = 0, None, {0: set(), 1: set()}
    for number in range(folders):
        unlearned = number % 2
        published = beside_ledger(expunge.publish(trained, budget, method=r2d()))
        outcome = forget(published, r2d() if unlearned else expunge.methods.Retrain())
        centres = [retrained.artifact.tensors, None]
        if unlearned:
            epsilon = outcome.certificate.epsilon
            world_state = outcome.after.state
        place, record = folder_of(outcome)
        content = load((place / record["runs"][0]["model"]["file"]).read_bytes())["linear.weight"].double()
        centres[1] = _unlearned_state(trained)
        # the best test of two Gaussians; and every number of the record against the norms that he can compute
        scores = [float((content - centre["linear.weight"].double()).norm()) for centre in centres]
        norms = [score / math.sqrt(content.numel()) for score in scores]
        told = [min((abs(norm - n) for n in numbers_in(record["runs"])), default=1.0) for norm in norms]
        if min(told) < 1e-6 * sigma:  # the folder holds one of the norms: certainty
            guess = int(told[1] < told[0])
        else:
            guess = int(scores[1] < scores[0])
        right += guess == unlearned
        seen[unlearned].add(tuple(sorted(path.name for path in place.rglob("*"))))
    assert world_state is not None and epsilon is not None and seen[0] == seen[1]
    chance = math.exp(epsilon) / (1 + math.exp(epsilon)) + 1e-5
    assert right <= binom.ppf(0.99, folders, chance), (right, folders, chance)


def _unlearned_state(trained):
    return r2d().replay(_context(trained))


def _context(trained):
    from expunge.core.data import Deletion
    from expunge.core.method import Context, InMemory, silent

    return Context(trained.task, trained, Deletion.of(trained.data, samples(3)), "", None, InMemory(), silent)


def test_no_number_in_the_record_follows_from_un_noised_weights():
    """Two folders of one request differ in noise alone: a certificate is the same in both, and no check holds a number."""
    trained, budget = world()
    found = []
    for _ in range(2):
        outcome = forget(beside_ledger(expunge.publish(trained, budget, method=r2d())), r2d())
        _, record = folder_of(outcome)
        (run,) = record["runs"]
        assert all(check["detail"] == {} for check in run["evidence"]["checks"])
        assert not any(re.search(r"\d\.\d", check["statement"]) for check in run["evidence"]["checks"])
        assert run["change"] == {} == run["details"] and "change_per_module" not in run["evidence"]["cost"]
        found.append(numbers_in({**run["certificate"], "binds": {}}))
    assert found[0] == found[1]  # a certificate is a function of settings, n and m alone


def test_digests_in_the_record_cannot_be_tested_against_guesses():
    trained, budget = world()
    outcome = forget(beside_ledger(expunge.publish(trained, budget, method=r2d())), r2d())
    place, record = folder_of(outcome)
    before, kept = trained.data, outcome.deletion.after
    plain = {
        before.digest, kept.digest, outcome.before.artifact.digest, outcome.before.trail.data,
        digest_arrays({"x": before.x, "y": before.y, "ids": before.ids}),
        expunge.core.trained.Artifact(outcome.after.state).digest, outcome.before.facts["training_ids"].value,
    }  # fmt: skip
    public = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert not [digest for digest in plain if digest.encode() in public]
    again, other = (folder_of(outcome)[1]["data"]["digest"] for _ in range(2))
    assert (
        again != other != record["data"]["digest"]
    )  # another salt in each record: two folders cannot be compared either


@pytest.mark.parametrize("count", [1, PRIVATE_BELOW - 1, PRIVATE_BELOW])
def test_values_on_few_forgotten_rows_stay_at_home(count):
    trained = expunge.train(head(), data(), GradientDescent(steps=20, lr=1.5, l2=1e-2))
    outcome = expunge.plan(trained, samples(*range(count)), expunge.methods.Retrain()).run()
    place, record = folder_of(outcome)
    items = {item["name"]: item for item in record["runs"][0]["evidence"]["measurements"]}
    open_ = count >= PRIVATE_BELOW
    for name in ("loss/forget", "accuracy/forget"):
        assert (items[name]["value"] is not None) is open_ and items[name]["original"] is None
    # with the mean over all rows, which an owner of the old data has, a retained mean says what a forgotten one says
    assert (items["loss/retain"]["value"] is not None) is open_ and items["loss/retain"]["original"] is None
    assert items["distance to retrained"]["value"] is None
    review = json.loads((place.parent / "evidence.private" / "review.json").read_text())
    whole = {item["name"]: item for item in review["runs"][0]["evidence"]["measurements"]}
    assert whole["loss/forget"]["value"] is not None is not whole["loss/forget"]["original"]
    assert oct((place.parent / "evidence.private").stat().st_mode)[-3:] == "700"


def test_the_threshold_is_a_setting():
    trained = expunge.train(head(), data(), GradientDescent(steps=20, lr=1.5, l2=1e-2))
    outcome = expunge.plan(trained, samples(3, 4), expunge.methods.Retrain()).run()
    _, record = folder_of(outcome, private_below=2)
    items = {item["name"]: item for item in record["runs"][0]["evidence"]["measurements"]}
    assert items["loss/forget"]["value"] is not None and record["private_below"] == 2


def test_the_loss_of_one_row_cannot_be_matched_against_candidates():
    trained = expunge.train(head(), data(), GradientDescent(steps=20, lr=1.5, l2=1e-2))
    outcome = expunge.plan(trained, samples(3), expunge.methods.Retrain()).run()
    place, record = folder_of(outcome)
    tensors = load((place / record["runs"][0]["model"]["file"]).read_bytes())
    task = trained.task
    with torch.no_grad():
        losses = task.losses(task.build(tensors), tensors, task.batch(trained.data)).tolist()
    written = numbers_in(record["runs"])
    assert min(abs(losses[3] - number) for number in written) > 1e-9
    page = (place / "report.html").read_text()
    assert f"{losses[3]:.3g}" not in page


def test_numbers_carry_the_digits_that_their_interval_supports():
    outcome = forget(beside_ledger(expunge.publish(*world()[:1], world()[1], method=r2d())), r2d())
    _, record = folder_of(outcome)
    for item in record["runs"][0]["evidence"]["measurements"]:
        if item["value"] is None or item["interval"] is None:
            continue
        half = (item["interval"][1] - item["interval"][0]) / 2
        unit = 10 ** (math.floor(math.log10(half)) - 1)
        assert math.isclose(item["value"] / unit, round(item["value"] / unit), abs_tol=1e-6), item


@pytest.mark.parametrize("width", [0.0, 1.1e-16])
def test_a_value_that_all_examples_share_is_not_written_out(width):
    """Equal examples give an interval without width, which would support every digit of what one of them scores."""
    from expunge.report.shown import supported

    value = 0.6251764329558186
    item = {"value": value, "ideal": value, "null": None, "original": value, "interval": [value, value + width]}
    said = supported(item)
    assert said == {"value": 0.625, "ideal": 0.625, "null": None, "original": 0.625, "interval": [0.625, 0.625]}


def test_certified_removal_does_not_publish_its_residual():
    from expunge.training.perturbed import PerturbedMinimiser

    trained = beside_ledger(expunge.train(head(), data(), PerturbedMinimiser(l2=0.5, sigma=40.0)))
    outcome = expunge.plan(trained, samples(5), expunge.methods.registry.make("certified_removal")).run()
    _, record = folder_of(outcome)
    reached = outcome.details["residual"]
    assert reached > 0 and min(abs(reached - number) for number in numbers_in(record)) > 1e-9
    assert "residual" not in record["runs"][0]["facts"]
    assert measured(outcome).outcome.certificate.epsilon <= 1


def test_what_is_shown_says_so_and_verifies():
    from expunge.report.verify import verify_folder

    outcome = forget(beside_ledger(expunge.publish(*world()[:1], world()[1], method=r2d())), r2d())
    place, record = folder_of(outcome)
    assert verify_folder(place).consistent
    assert "This page may be shown" in (place / "report.html").read_text()
    review = (place.parent / "evidence.private" / "review.html").read_text()
    assert "PRIVATE" in review and "salt" not in record
    whole = json.loads((place.parent / "evidence.private" / "review.json").read_text())
    again = json.loads(json.dumps(shown(whole)))
    assert record.pop("live_ledger") == "elsewhere"  # which the folder says of itself
    assert record.pop("pdf") is False and "config.yaml" in record.pop("files")
    assert again == record  # the private record and its salt give the public one again


def test_a_request_of_a_named_person_is_nowhere_in_the_folder():
    trained = expunge.train(head(), data(), GradientDescent(steps=20, lr=1.5, l2=1e-2))
    request = Request("Jane Doe-Testperson", Target("user", {"patient": 41}))
    outcome = expunge.plan(trained, request, expunge.methods.Retrain()).run()
    place, _ = folder_of(outcome)
    public = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert b"Jane" not in public and b"Testperson" not in public
