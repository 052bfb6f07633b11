"""Jobs with a section ``network``: what is published, who may leave, what is shown of each peer, and what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import yaml

from expunge.core.errors import InputError, RefusedError
from expunge.core.method import silent
from expunge.core.request import Target
from expunge.data.partition import Partition, label_of
from expunge.jobs.run import plan_job, publish_job, run_job
from expunge.jobs.schema import load_job
from expunge.modalities import load, networks
from expunge.model_folder import ModelFolder
from expunge.network.gossip import Gossip
from expunge.network.mixing import metropolis
from expunge.network.topology import Topology
from expunge.network.walk import Walk
from expunge.report.verify import verify_folder

CLIENTS = ("basel", "bern", "chur", "genf")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """40 rows of two features at each of four clients; ``chur`` has none of class 2."""
    generator, folder = np.random.default_rng(0), tmp_path_factory.mktemp("table")
    for name, count in (("train", 40), ("test", 10)):
        lines = ["a,b,place,label"]
        for client in CLIENTS:
            for i in range(count):
                label = i % (2 if client == "chur" else 3)
                a, b = np.clip(generator.normal([0.2 + 0.3 * label, 0.8 - 0.3 * label], 0.1), 0, 1)
                lines.append(f"{a:.3f},{b:.3f},{client},{label}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def job(table, *, where=None, kind="client", target=None, **changes):
    content = {
        "model": "expunge.tasks.networks:SoftmaxHead",
        "model_settings": {"features": 2, "classes": 3},
        "dtype": "float64",
        "data": {
            "format": "csv", "path": "train.csv", "test_path": "test.csv", "label": "label", "users": ["place"],
            "scale": {"a": [0, 1], "b": [0, 1]}, "classes": [0, 1, 2],
        },
        "network": {"owner": "place", "names": "shown", "topology": {"kind": "ring"},
                    "recipe": {"kind": "gossip", "rounds": 400, "lr": 0.3, "l2": 0.05}},
        "publish": {"epsilon": 1.0, "delta": 1e-4, "capacity": 60, "releases": 2},
        "request": {"subject": "s", "targets": [{"kind": kind, "where": where or {"place": "bern"}}]},
        "method": {"name": "network_newton", "distance": 0.15, "tau": 3e-3},
        "evidence": {"replicates": 1, "shadow_models": 0, "trials": 20, "audit": False, "pdf": False},
    }  # fmt: skip
    for path, value in changes.items():
        *parts, last = path.split("__")
        section = content
        for part in parts:
            section = section[part]
        if value is None:
            del section[last]
        else:
            section[last] = value
    place = table / "job.yaml"
    place.write_text(yaml.safe_dump(content, sort_keys=False))
    return place


def opened(place):
    checked = load_job(place)
    return networks.opened(load(checked.task), checked)


@pytest.fixture(scope="module")
def served(table, tmp_path_factory):
    """A published network from which two requests were served."""
    place, folder = job(table), tmp_path_factory.mktemp("served")
    publish_job(place, [], folder / "model")
    first = run_job(place, [], folder / "one", model=folder / "model")
    place = job(table, kind="class", where={"label": 2, "place": "genf"})
    second = run_job(place, [], folder / "two", model=folder / "model")
    return folder, first, second


def test_a_published_network_is_certified_and_the_next_request_starts_from_what_the_last_one_left(served, table):
    folder, first, second = served
    records = [json.loads((folder / name / "evidence.json").read_text()) for name in ("one", "two")]
    for summary, record in zip((first, second), records, strict=True):
        assert summary["runs"][0]["verdict"] == "certified" and summary["accepted"]
        assert record["runs"][0]["views"] == ["basel", "chur", "genf"]
    budgets = [run["runs"][0]["epsilon"] for run in (first, second)]
    assert budgets[0] < budgets[1] <= 1.0 + 1e-9
    for name in ("one", "two"):
        result = verify_folder(folder / name, None, ledger=folder / "model" / "ledger.sqlite")
        assert result.consistent, [check for check in result.checks if not check.ok]
    stored = ModelFolder(folder / "model")
    what = opened(job(table))
    left = stored.load(what.task, what.data)
    assert set(left.views) == {"basel", "chur", "genf"} and len(left.spent) == 2 and isinstance(left.recipe, Gossip)
    assert "bern" not in left.data.clients and len(left.data.at("genf")) < 40


def test_rows_of_each_peer_are_measured_and_the_worst_is_named(served):
    folder, first, _ = served
    items = {(i["metric"], i["set"]): i for i in first["runs"][0]["measurements"]}
    for client in ("basel", "chur", "genf"):
        assert items["accuracy", f"test at {client}"]["n"] == 10
    assert ("accuracy", "test at bern") not in items  # it has left
    page = (folder / "one" / "report.html").read_text()
    assert "3 peers hold the new model, the same bytes at each" in page
    assert "on the test rows of single peers: worst at" in page


def test_peers_with_models_of_their_own_are_stored_and_served_one_by_one(table, tmp_path):
    own = {"network__mixing": {"consensus": False}, "publish": None, "method": {"name": "network_newton"}}
    place = job(table, **own)
    publish_job(place, [], tmp_path / "model")
    what = opened(place)
    before = ModelFolder(tmp_path / "model").load(what.task, what.data)
    again = what.recipe.fit(what.task, what.data)
    assert {peer: view.digest for peer, view in before.views.items()} == {
        peer: view.digest for peer, view in again.views.items()
    }
    assert len({view.digest for view in before.views.values()}) == 4
    summary = run_job(place, [], tmp_path / "out", model=tmp_path / "model")
    run = json.loads((tmp_path / "out" / "evidence.json").read_text())["runs"][0]
    assert run["verdict"] == "no-certificate" and len(run["other_views"]) == 2
    measured = {(i["set"], i["view"]) for i in summary["runs"][0]["measurements"] if i["metric"] == "accuracy"}
    for client in ("basel", "chur", "genf"):  # each model on the rows of its own peer, and of no other
        assert {view for of, view in measured if of == f"test at {client}"} == {client}
    after = ModelFolder(tmp_path / "model").load(what.task, what.data)
    assert [view.digest for view in after.views.values()] == [
        view["model"]["digest"] for view in (run, *run["other_views"])
    ]


def test_a_walk_is_published_and_its_recipe_comes_back(table, tmp_path):
    walk = {"kind": "walk", "hops": 12, "lr": 0.05, "steps": 5, "batch_size": 8}
    place = job(table, network__recipe=walk, publish=None, method={"name": "rr_du"})
    publish_job(place, [], tmp_path / "model")
    what = opened(place)
    back = ModelFolder(tmp_path / "model").load(what.task, what.data)
    assert type(back.recipe) is Walk and back.recipe == what.recipe
    assert len({id(view) for view in back.views.values()}) == 1 and len(back.views) == 4


PATH = {"kind": "edges", "edges": [["basel", "bern"], ["bern", "chur"], ["chur", "genf"]]}


def test_whoever_would_cut_the_network_is_refused_with_its_name_or_the_rest_is_rewired_on_record(table):
    with pytest.raises(RefusedError, match=r"Without bern the network falls into 2 parts.*cut set"):
        plan_job(job(table, network__topology=PATH))
    planned = plan_job(job(table, network__topology=PATH, network__mixing={"rewire": True}))
    assert planned["certified"] and planned["forgotten"] == 40
    assert plan_job(job(table, network__topology=PATH, where={"place": "basel"}))["forgotten"] == 40


def test_a_given_mixing_matrix_trains_as_it_says_and_keeps_for_itself_what_left(table):
    ring = Topology.make("ring", CLIENTS)
    lazy = 0.5 * (np.eye(4) + metropolis(ring).toarray())
    what = opened(job(table, network__mixing={"weights": lazy.tolist()}))
    assert np.allclose(what.recipe.matrix(ring).toarray(), lazy)
    left = ring.without(["bern"])
    expected = np.delete(np.delete(lazy, 1, 0), 1, 1)
    expected[[0, 1], [0, 1]] += lazy[1, [0, 2]]
    assert np.allclose(what.recipe.matrix(left).toarray(), expected)
    with pytest.raises(RefusedError, match="The edge between basel and chur is new"):
        what.recipe.matrix(Topology.make("complete", ["basel", "chur", "genf"]))
    same = opened(job(table, network__mixing={"weights": metropolis(ring).toarray().tolist()}))
    plain = opened(job(table))
    assert (
        same.recipe.fit(same.task, same.data).artifact.digest
        == plain.recipe.fit(plain.task, plain.data).artifact.digest
    )


SKEW = [[0.5, 0.5, 0, 0], [0.4, 0.6, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]]
RECIPE = {"kind": "gossip", "rounds": 2, "lr": 0.1}
BAD = {
    "a network in two parts": ({"network__topology": {"kind": "edges", "edges": [["basel", "bern"], ["chur", "genf"]]}},
                               "falls into 2 parts"),
    "a client without data": ({"network__topology": {"kind": "edges", "edges": [["basel", "lugano"]]}},
                              "lugano, which hold"),
    "data that the client does not hold": ({"kind": "class", "where": {"label": 2, "place": "chur"}},
                                           "'chur', which holds no such row"),
    "a client that there is not": ({"where": {"place": "lugano"}}, "lugano"),
    "a matrix that is not doubly stochastic": ({"network__mixing": {"weights": SKEW}}, "doubly stochastic mixing matrix"),
    "a matrix that is not square": ({"network__mixing": {"weights": [[1.0, 0.0]]}}, "square mixing matrix"),
    "everybody leaves": ({"where": {"place": list(CLIENTS)}}, "everything"),
    "no owners": ({"network__owner": "a"}, "Expected a column that says whose each row is"),
    "owners in two ways": ({"network__clients": 3}, "whose rows are whose"),
    "no recipe": ({"network__recipe": None}, "how the network is trained in one place"),
    "a walk that mixes": ({"network__recipe": {"kind": "walk", "hops": 2, "lr": 0.1}, "network__mixing": {"drop": 0.5}},
                          "averages nothing"),
    "more clients than rows": ({"network": {"clients": 500, "recipe": RECIPE}}, "Expected a row for each of 500 clients"),
    "shares by label among owners": ({"network__alpha": 0.5}, "alpha shares rows out"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_used_is_refused_before_anything_is_trained(table, what, monkeypatch):
    monkeypatch.setattr(Gossip, "fit", lambda *a, **k: pytest.fail("something was trained"))
    changes, message = BAD[what]
    with pytest.raises((InputError, RefusedError), match=message):
        plan_job(job(table, **changes), watch=silent)


def test_one_client_is_a_network_of_one_and_a_kind_without_rows_is_none(table, tmp_path):
    planned = plan_job(job(table, network={"clients": 1, "recipe": RECIPE}, publish=None, kind="samples",
                           where={"ids": [0, 1]}, method={"name": "network_newton"}))  # fmt: skip
    assert planned["forgotten"] == 2
    graph = tmp_path / "graph.yaml"
    graph.write_text(
        yaml.safe_dump(
            {
                "task": "graph", "model": "gcn", "data": {"format": "block_model", "preset": "small"},
                "network": {"clients": 2, "recipe": RECIPE}, "method": {"name": "retrain"},
                "request": {"subject": "s", "targets": [{"kind": "node", "where": {"ids": [1]}}]},
            }
        )
    )  # fmt: skip
    with pytest.raises(InputError, match="Expected rows that clients can hold"):
        plan_job(graph)


def test_every_client_is_named_by_its_owner_in_every_set(table):
    what = opened(job(table))
    assert isinstance(what.data, Partition) and isinstance(what.probes["test"], Partition)
    assert what.data.clients == CLIENTS and "4 peers without a server" in what.note


# --- names: peers may be people --------------------------------------------------------------------------------------------


def test_peers_have_labels_in_everything_that_is_kept_unless_the_job_says_that_names_may_be_shown(table, tmp_path):
    edges = {"kind": "edges", "edges": [*PATH["edges"], ["genf", "basel"]]}
    keyed = {"network__names": "keyed", "network__topology": edges, "evidence__trials": 0, "evidence__replicates": 0}
    place = job(table, **keyed)
    publish_job(place, [], tmp_path / "model")
    summary = run_job(place, [], tmp_path / "out", model=tmp_path / "model")
    run = json.loads((tmp_path / "out" / "evidence.json").read_text())["runs"][0]
    assert run["verdict"] == "certified" and len(run["views"]) == 3
    assert all(re.fullmatch("peer-[0-9a-f]{12}", view) for view in run["views"])
    measured = {item["set"] for item in summary["runs"][0]["measurements"]}
    assert {f"test at {view}" for view in run["views"]} <= measured
    for folder in ("out", "out.private", "model"):
        for path in (tmp_path / folder).rglob("*"):
            content = path.read_bytes().lower() if path.is_file() else b""
            assert not [name for name in CLIENTS if re.search(rf"\b{name}\b".encode(), content)], path
    second = job(table, kind="class", where={"label": 2, "place": "genf"}, **keyed)
    assert run_job(second, [], tmp_path / "two", model=tmp_path / "model")["runs"][0]["verdict"] == "certified"
    what, shown = opened(place), opened(job(table))
    assert what.data.named_clients == shown.data.clients == CLIENTS
    assert tuple(map(what.data.name_of, what.data.clients)) == CLIENTS
    assert len(what.data.select(Target("client", {"place": "bern"}))) == 40
    assert what.data.named() == shown.data.named()  # whoever leaves is recognised later, whatever peers are called


def test_messages_name_owners_whose_peers_have_labels(table):
    keyed = {"network__names": "keyed", "network__topology": PATH}
    with pytest.raises(
        RefusedError, match=r"Without bern the network falls into 2 parts \(basel apart from chur, genf\)"
    ):
        plan_job(job(table, **keyed))
    with pytest.raises(InputError, match=r"clients: basel, bern, chur, genf"):
        plan_job(job(table, where={"place": "lugano"}, network__names="keyed"))


def test_labels_are_those_of_one_key_and_no_guess_finds_them():
    first, second = (label_of("bern", "place", key) for key in (b"a" * 32, b"b" * 32))
    assert first != second and first == label_of("bern", "place", b"a" * 32) != label_of("basel", "place", b"a" * 32)
    assert first != label_of("bern", "town", b"a" * 32)


def test_the_record_leaves_out_what_the_job_says_of_how_a_stored_network_was_trained(served):
    folder, _, _ = served
    config = yaml.safe_load((folder / "one" / "config.yaml").read_text())
    assert set(config["network"]) == {"owner", "names", "clients", "alpha"}
