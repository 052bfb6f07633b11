"""A model on disk and back, a training loop on record, and requests that follow one another."""

from __future__ import annotations

import functools
import json
import stat

import pytest
import torch
from tests.product.conftest import ROOT

import expunge
from expunge.core.errors import InputError, TamperedError
from expunge.data.digits import digits
from expunge.data.rows import Rows
from expunge.tasks.networks import SoftmaxHead, perceptron
from expunge.training.recorder import LOOP
from expunge.training.store import load_trained, save_trained

TASK = expunge.Classification(functools.partial(SoftmaxHead, 64, 10), dtype=torch.float64)
NETWORK = expunge.Classification(functools.partial(perceptron, (64, 8, 10)))
RECIPE = expunge.GradientDescent(steps=40, lr=0.5, l2=0.01, rewinds=(0.5, 1.0))


@pytest.fixture(scope="module")
def rows() -> Rows:
    return digits()[0].only(expunge_ids(range(200)))


def expunge_ids(ids):
    from expunge.core.data import Ids

    return Ids.rows(ids)


def loop(task, rows, recipe=RECIPE, *, seed=0, x=None, lr=None, momentum=0.0, steps=None, decay=None, **options):
    """A user's loop; with arguments that differ from the recipe it is not the one that the recipe names."""
    model = task.build(seed=seed)
    recorder = expunge.Recorder(task, rows, recipe).start(model)
    inputs = (rows.x if x is None else x).to(task.dtype)
    rate, decay = lr or recipe.lr, recipe.l2 if decay is None else decay
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
    for _ in range(steps or recipe.steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), rows.y[: len(inputs)]).backward()
        optimizer.step()
        recorder.step(model)
    return recorder.finish(model, **options)


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def alike(first, second) -> bool:
    """Up to rounding: the loop differentiates, the recipe computes small networks' gradients in closed form."""
    return first.keys() == second.keys() and all(
        torch.allclose(first[name], second[name], rtol=1e-4, atol=1e-6) for name in first
    )


def test_an_honest_loop_is_confirmed(rows):
    trained = loop(TASK, rows)
    for name in LOOP:
        assert trained.facts[name].origin == "enforced", name
        assert "replayed" in trained.facts[name].note
    assert trained.facts["start"].origin == "enforced", "the seed gives the same start"
    assert trained.facts["selection"].origin == "declared", "no replay can see why it stopped"
    ours = RECIPE.fit(TASK, rows)
    assert alike(trained.artifact.tensors, ours.artifact.tensors)
    assert trained.trail.steps == ours.trail.steps


def test_a_regulariser_written_another_way_is_the_same_loop(rows):
    model = NETWORK.build(seed=3)
    recipe = expunge.GradientDescent(steps=200, lr=0.3, l2=0.01)
    recorder = expunge.Recorder(NETWORK, rows, recipe).start(model)
    for _ in range(200):
        model.zero_grad()
        penalty = sum(p.square().sum() for p in model.parameters())
        (torch.nn.functional.cross_entropy(model(rows.x), rows.y) + 0.005 * penalty).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.3 * p.grad
        recorder.step(model)
    assert recorder.finish(model).facts["lr"].origin == "enforced"


@pytest.mark.parametrize(
    "lie",
    [{"lr": 0.51}, {"momentum": 0.01}, {"decay": 0.0}, {"x": "one row less"}, {"x": "one row changed"}],
    ids=["step size", "momentum", "regulariser", "a row left out", "a row changed"],
)
def test_a_lying_loop_is_refused(rows, lie):
    if lie.get("x") == "one row less":
        lie = {"x": rows.x[:-1]}
    elif lie.get("x") == "one row changed":
        lie = {"x": torch.cat([rows.x[:-1], torch.zeros(1, 64)])}
    with pytest.raises(InputError, match="not the recipe it names"):
        loop(TASK, rows, **lie)


def test_without_replay_everything_is_a_declaration(rows):
    trained = loop(TASK, rows, lr=0.6, replay=False)
    assert {trained.facts[name].origin for name in LOOP} == {"declared"}


def test_a_start_of_the_user_s_own_is_where_retraining_begins(rows):
    trained = loop(NETWORK, rows, seed=5)
    assert trained.facts["start"].origin == "declared"
    again = trained.recipe.fit(NETWORK, rows, seed=trained.seed)
    assert alike(again.artifact.tensors, trained.artifact.tensors)


def test_recording_the_wrong_way(rows):
    recorder = expunge.Recorder(TASK, rows, RECIPE)
    model = TASK.build()
    with pytest.raises(InputError, match="start"):
        recorder.step(model)
    with pytest.raises(InputError, match="Expected 40 recorded steps"):
        loop(TASK, rows, steps=39)
    with pytest.raises(InputError, match=r"float64, as the task says; the model has torch\.float32"):
        recorder.start(SoftmaxHead(64, 10))
    with pytest.raises(InputError, match="another architecture"):
        recorder.start(SoftmaxHead(64, 9).double())


@pytest.fixture
def published(rows):
    return expunge.publish(RECIPE.fit(TASK, rows), expunge.Budget(2.0, 1e-5, capacity=20))


def test_a_model_comes_back_as_it_was(published, rows, tmp_path):
    save_trained(tmp_path / "model", published)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o700
    back = load_trained(tmp_path / "model", TASK, rows)
    assert back.artifact.digest == published.artifact.digest
    assert same(back.state, published.state)
    assert back.trail.steps == published.trail.steps
    assert all(same(back.trail.at(step), published.trail.at(step)) for step in back.trail.steps)
    for name in ("facts", "budget", "spent", "seed", "recipe"):
        assert getattr(back, name) == getattr(published, name), name


def test_a_pretrained_start_comes_back(rows, tmp_path):
    start = NETWORK.build(seed=9).state_dict()
    recipe = expunge.GradientDescent(steps=20, lr=0.1, start=start, start_origin="public")
    trained = recipe.fit(NETWORK, rows)
    save_trained(tmp_path / "model", trained)
    back = load_trained(tmp_path / "model", NETWORK, rows)
    assert same(back.recipe.fit(NETWORK, rows).artifact.tensors, trained.artifact.tensors)
    assert back.recipe.describe() == recipe.describe()


def test_a_second_request_composes_with_the_first(published, rows, tmp_path):
    method = expunge.methods.registry.make("r2d", {"rewind": 0.5})
    requests = [expunge.Request(f"p{i}", (expunge.Target("user", {"person": i}),)) for i in (3, 7)]
    first = expunge.plan(published, requests[0], method).run()
    save_trained(tmp_path / "next", first.after)
    back = load_trained(tmp_path / "next", TASK, rows)
    assert (len(back.removed), len(back.data), len(back.spent)) == (10, 190, 1)
    with pytest.raises(InputError, match="matches nothing"):
        expunge.plan(back, requests[0], method)
    second = expunge.plan(back, requests[1], method).run()
    assert second.certificate.composed_mu == pytest.approx((first.certificate.mu**2 + second.certificate.mu**2) ** 0.5)
    assert second.certificate.epsilon > second.certificate.release_epsilon
    assert len(second.after.removed) == 20


def test_a_release_without_a_bound_has_spent_everything(published, rows, tmp_path):
    request = expunge.Request("p3", (expunge.Target("user", {"person": 3}),))
    outcome = expunge.plan(published, request, expunge.methods.registry.make("fine_tune", {"epochs": 1})).run()
    save_trained(tmp_path / "next", outcome.after)
    (spent,) = load_trained(tmp_path / "next", TASK, rows).spent
    assert spent.mu == float("inf")


def test_a_refuted_release_has_spent_everything(published):
    from expunge.jobs.releasing import next_model

    request = expunge.Request("p3", (expunge.Target("user", {"person": 3}),))
    outcome = expunge.plan(published, request, expunge.methods.registry.make("r2d", {"rewind": 0.5})).run()
    assert next_model(outcome, {"verdict": "certified"}) == outcome.after
    assert next_model(outcome, {"verdict": "void"}).spent[0].mu == float("inf")


def test_other_rows_and_other_architectures_are_refused(published, rows, tmp_path):
    save_trained(tmp_path / "model", published)
    with pytest.raises(InputError, match="not those that the model"):
        load_trained(tmp_path / "model", TASK, rows.without(expunge_ids([5])))
    with pytest.raises(InputError, match="another architecture"):
        load_trained(tmp_path / "model", NETWORK, rows)
    with pytest.raises(InputError, match="no stored model"):
        load_trained(tmp_path / "nowhere", TASK, rows)


def test_a_changed_or_missing_file_is_noticed(published, rows, tmp_path):
    save_trained(tmp_path / "model", published)
    record = json.loads((tmp_path / "model" / "trained.json").read_text())
    state = tmp_path / "model" / "state.safetensors"
    content = state.read_bytes()
    state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(TamperedError, match="not the file that was stored"):
        load_trained(tmp_path / "model", TASK, rows)
    state.unlink()
    with pytest.raises(TamperedError, match="is missing"):
        load_trained(tmp_path / "model", TASK, rows)
    for broken in ({**record, "format": "another"}, {"format": record["format"]}, {**record, "removed": 3}, []):
        (tmp_path / "model" / "trained.json").write_text(json.dumps(broken))
        with pytest.raises(InputError):
            load_trained(tmp_path / "model", TASK, rows)


def test_the_example_jobs_run(cli, tmp_path, monkeypatch):
    """As a reader would run them, in a copy, from the folder that holds ``examples``."""
    import shutil

    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("out", "__pycache__"))
    monkeypatch.syspath_prepend(str(tmp_path))
    quick = (
        "--set",
        "evidence.shadow_models=0",
        "--set",
        "evidence.replicates=0",
        "--set",
        "evidence.pdf=false",
        "--json",
    )
    for name in ("digits", "heart"):
        published = cli("publish", f"examples/jobs/{name}.yaml", "--to", f"out/{name}-model", "--json")
        assert published.code == 0, published.err
        served = cli(
            "run", f"examples/jobs/{name}.yaml", "--model", f"out/{name}-model", "--out", f"out/{name}", *quick
        )
        assert served.json["runs"][0]["verdict"] == "certified", served.err
        assert cli("verify", f"out/{name}").code in (5, 6)

    from examples.own_loop import train

    train(tmp_path / "examples" / "out" / "own-model")
    runs = []
    for name, out in (("own_loop", "first"), ("own_loop_next", "second")):
        done = cli("run", f"examples/jobs/{name}.yaml", "--out", f"examples/out/{out}", *quick)
        assert done.code == 0, done.err
        runs.append(done.json["runs"][0])
        assert cli("verify", f"examples/out/{out}").code in (5, 6)
    assert [run["verdict"] for run in runs] == ["certified-under-declared-constants"] * 2
    assert runs[0]["epsilon"] < runs[1]["epsilon"] <= 1, "the second certificate speaks of both releases"
    rows = cli("requests", "list", "--ledger", "examples/out/ledger.sqlite", "--json").json
    assert [row["status"] for row in rows] == ["fulfilled"] * 2


def test_the_example_job_of_a_language_model_runs(cli, tmp_path):
    """In a copy, as a reader would run it, but with little training."""
    import shutil

    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("out", "__pycache__"))
    quick = ("training.epochs=2", "method.epochs=2", "evidence.replicates=0", "evidence.pdf=false")
    settings = [word for setting in quick for word in ("--set", setting)]
    done = cli("run", "examples/jobs/people.yaml", "--out", "out/people", "--json", *settings)
    assert done.code == 4, (
        done.err
    )  # two epochs of training: there is nothing that the measurements could see forgotten
    assert (done.json["runs"][0]["verdict"], done.json["accepted"]) == ("no-certificate", False)
    assert cli("verify", "out/people").code in (5, 6)
    decision = json.loads((tmp_path / "out/people/evidence.json").read_text())["request"]["decision"]
    assert (decision["decision"], decision["action"]) == ("grant", "strip")
    assert decision["screening"]["flagged"] and not decision["screening"]["flagged_after"]


def test_the_example_records_are_what_their_script_writes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import examples.people

    monkeypatch.setattr(examples.people, "DATA", tmp_path)
    examples.people.write()
    for name in ("people.jsonl", "everyday.jsonl", "people_request.jsonl"):
        assert (tmp_path / name).read_bytes() == (ROOT / "examples" / "data" / name).read_bytes()


def test_the_example_table_is_what_its_script_writes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import examples.heart

    monkeypatch.setattr(examples.heart, "DATA", tmp_path / "data")
    examples.heart.write()
    for name in ("visits.csv", "visits_test.csv"):
        assert (tmp_path / "data" / name).read_bytes() == (ROOT / "examples" / "data" / name).read_bytes()
