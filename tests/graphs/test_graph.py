"""Graphs as data: ids that keep their meaning, what a request names, readers, and what is refused in words."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from expunge.core.data import Deletion, Ids
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.data.graphs import names
from expunge.data.graphs.block_model import PRESETS, BlockModel, block_model
from expunge.data.graphs.files import coauthor, read_graph
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.planetoid import planetoid
from expunge.data.graphs.reach import within
from expunge.data.graphs.splits import per_class, shares

X = np.array([[1, 0, 2], [0, 1, 0], [3, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 0]], dtype=np.float32)
Y = np.array([0, 1, 0, 1, -1, 1])
PATH = [(10, 11), (11, 12), (12, 13), (13, 14)]  # node 15 is alone; 14 has no label


def graph(**settings) -> Graph:
    return Graph.of(X, Y, PATH, nodes=np.arange(10, 16), **settings)


def asked(*targets: Target) -> Request:
    return Request("somebody", targets)


def node(*ids: int) -> Target:
    return Target("node", {"ids": list(ids)})


def test_a_node_goes_with_its_edges_and_the_others_keep_their_names():
    after = graph().without(graph().select(node(12)))
    assert after.nodes.tolist() == [10, 11, 13, 14, 15] and after.edges.tolist() == [[10, 11], [13, 14]]
    assert np.array_equal(after.x.toarray(), X[[0, 1, 3, 4, 5]]) and after.examples.tolist() == [10, 11, 13, 15]
    later = after.without(after.select(Target("edge", {"pairs": [[14, 13]]})))
    assert later.edges.tolist() == [[10, 11]] and later.nodes.tolist() == after.nodes.tolist()


def test_features_go_fully_or_in_part_and_scales_are_those_of_what_is_left():
    whole = graph(scale="rows")
    part = whole.without(whole.select(Target("feature", {"node": [10], "column": [0]})))
    assert part.x.toarray()[0].tolist() == [0, 0, 2] and part.features.toarray()[0].tolist() == [0, 0, 1]
    assert whole.features.toarray()[0].tolist() == pytest.approx([1 / 3, 0, 2 / 3])
    full = whole.without(whole.select(Target("feature", {"node": [10, 12]})))
    assert not full.x.toarray()[[0, 2]].any() and np.array_equal(full.x.toarray()[[1, 3, 4]], X[[1, 3, 4]])
    assert full.nodes.tolist() == whole.nodes.tolist() and len(full.edges) == 4


def test_mixed_requests_name_everything_once():
    targets = (node(10), Target("edge", {"pairs": [[13, 12]]}), Target("feature", {"node": 14}))
    deletion = Deletion.of(graph(), asked(*targets))
    assert {unit: len(ids) for unit, ids in deletion.ids.of.items()} == {"node": 1, "edge": 1, "feature": 3}
    assert deletion.after.edges.tolist() == [[11, 12], [13, 14]]
    assert deletion.forget.examples.tolist() == [10, 12, 13] and deletion.forget.nodes.tolist() == list(range(10, 16))
    assert graph().examples_in(deletion.ids) == 1 == len(deletion.before) - len(deletion.after)


def test_the_digest_tells_contents_apart():
    seen = {graph().digest, graph(scale="rows").digest, graph(depth=2).digest, graph().on([10]).digest}
    ids = (node(12), Target("edge", {"pairs": [[10, 11]]}), Target("feature", {"node": [10]}))
    seen |= {graph().without(graph().select(target)).digest for target in ids}
    assert len(seen) == 7 and graph().digest == graph().digest


@pytest.mark.parametrize("seed", range(3))
def test_balls_are_those_of_matrix_powers(seed):
    made = block_model(BlockModel(60, 80, 5, 2, words=2), seed)
    step = (made.adjacency.toarray() > 0) | np.eye(60, dtype=bool)
    reached = np.eye(60, dtype=bool)[:, [3, 7]].any(1)
    for hops in range(4):
        assert np.array_equal(within(made, np.array([3, 7, 999]), hops), reached)
        reached = step @ reached


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (node(99), "nodes 99|ids 99"),
        (node(10, 10), "twice"),
        (Target("edge", {"pairs": [[10, 12]]}), "the edge 10, 12"),
        (Target("edge", {"pairs": [[10, 11], [11, 10]]}), "both directions of it are one edge"),
        (Target("edge", {"pairs": [[10, 10]]}), "self-loop"),
        (Target("edge", {"ids": [3]}), "says where as"),
        (Target("edge", {"pairs": [[1, 2, 3]]}), "two nodes each"),
        (Target("feature", {"node": [15]}), "features of node 15 that are not zero"),
        (Target("feature", {"node": [10], "column": [1]}), "column 1"),
        (Target("feature", {"node": [10], "column": [7]}), "columns 0 to 2"),
        (Target("node", {"ids": ["10"]}), "whole numbers"),
        (Target("node", {"names": ["ann"]}), "no names"),
        (Target("user", {"name": 3}), "no meaning here"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_meant_are_refused_in_words(target, message):
    with pytest.raises(InputError, match=message):
        Deletion.of(graph(), asked(target))


def test_an_empty_request_and_one_for_everything_are_refused():
    with pytest.raises(InputError, match="empty list"):
        node()
    with pytest.raises(InputError, match="matches everything"):
        Deletion.of(graph(), asked(node(10, 11, 12, 13, 15)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.where(X == 3, np.nan, X)}, "row 2 holds NaN"),
        ({"y": np.array([0, 1, 0, 1, -2, 1])}, "smallest is -2"),
        ({"edges": [(0, 1), (1, 9)]}, "9 is or are no node"),
        ({"edges": [(0, 0)]}, "self-loop"),
        ({"edges": [(0, 1), (1, 0), (1, 2)]}, "both directions"),
        ({"nodes": [1, 1, 2, 3, 4, 5]}, "1 stand"),
        ({"nodes": [0, 1, 2, 3, 4, 2**31]}, "from 0 to"),
        ({"examples": [4]}, "4 has or have none"),
        ({"examples": [77]}, "77 is or are none"),
        ({"x": X[:4]}, "one row of features"),
    ],
)
def test_data_that_are_no_graph_are_refused_in_words(changes, message):
    with pytest.raises(InputError, match=message):
        Graph.of(**{"x": X, "y": Y, "edges": [(0, 1)], **changes})


def test_every_edge_in_both_directions_is_the_same_graph():
    both = Graph.of(X, Y, [*PATH, *[(b, a) for a, b in PATH]], nodes=np.arange(10, 16))
    assert both.digest == graph().digest


def test_ids_of_edges_and_features_go_there_and_back():
    draw = np.random.default_rng(0)
    pairs = np.sort(draw.integers(0, names.LIMIT, (50, 2)), 1)
    assert np.array_equal(names.edges(names.of_edges(pairs[:, ::-1])), pairs)


# --- readers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "ones", "train"),
    [("Cora", 2708, 5278, 49216, 140), ("CiteSeer", 3327, 4552, 105165, 120), ("PubMed", 19717, 44324, 988031, 60)],
)
def test_planetoid_is_read_as_published(name, nodes, edges, ones, train, real_data):
    found, sets = planetoid(name, real_data("planetoid"))
    assert (len(found.nodes), len(found.edges), found.x.nnz, len(found)) == (nodes, edges, ones, train)
    assert {key: len(each) for key, each in sets.items()} == {"validation": 500, "test": 1000}
    if name == "Cora":
        assert np.bincount(found.y).tolist() == [351, 217, 418, 818, 426, 298, 180]
        assert np.diff(found.adjacency.indptr).max() == 168
    if name == "CiteSeer":
        assert (np.diff(found.adjacency.indptr) == 0).sum() == 48 and (found.y < 0).sum() == 15
        assert found.features.sum(1).max() == pytest.approx(1) and np.isfinite(found.features.data).all()


@pytest.mark.parametrize(("name", "nodes", "edges"), [("CS", 18333, 81894), ("Physics", 34493, 247962)])
def test_coauthor_is_read_as_published(name, nodes, edges, real_data):
    found = coauthor(name, real_data("coauthor"))
    assert (len(found.nodes), len(found.edges)) == (nodes, edges) and set(np.unique(found.x.data)) == {1.0}


def test_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("EXPUNGE_DATA", raising=False)
    with pytest.raises(InputError, match=r"planetoid/Cora/raw/ind\.cora\.x"):
        planetoid("Cora")
    (tmp_path / "Cora" / "raw").mkdir(parents=True)
    (tmp_path / "Cora" / "raw" / "ind.cora.x").write_bytes(b"")
    with pytest.raises(InputError, match=r"no ind\.cora\.tx .*all eight"):
        planetoid("Cora", tmp_path)
    with pytest.raises(InputError, match="ms_academic_cs"):
        coauthor("CS", tmp_path)


class Calls:
    """Makes a pickle that would run something."""

    def __reduce__(self):
        return (print, ("ran",))


def test_pickles_of_planetoid_run_nothing(tmp_path, real_data, capsys):
    folder = tmp_path / "Cora" / "raw"
    folder.mkdir(parents=True)
    for file in (real_data("planetoid") / "planetoid" / "Cora" / "raw").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "ind.cora.graph").write_bytes(pickle.dumps({0: Calls()}, protocol=2))
    with pytest.raises(InputError, match="was refused"):
        planetoid("Cora", tmp_path)
    assert capsys.readouterr().out == ""


def test_own_files_give_the_same_graph(tmp_path):
    np.savez(tmp_path / "g.npz", x=X, y=Y, edges=np.array(PATH), nodes=np.arange(10, 16))
    index = torch.tensor(PATH).T - 10
    torch.save({"x": torch.from_numpy(X), "y": torch.from_numpy(Y), "edge_index": index}, tmp_path / "g.pt")
    rows = [f"{10 + i},{'' if y < 0 else y},{','.join(map(str, x))}" for i, (x, y) in enumerate(zip(X, Y, strict=True))]
    (tmp_path / "nodes.csv").write_text("node,label,a,b,c\n" + "\n".join(rows) + "\n")
    (tmp_path / "edges.csv").write_text("from,to\n" + "\n".join(f"{a},{b}" for a, b in PATH) + "\n")
    first, second = read_graph(tmp_path / "g.npz"), read_graph(tmp_path / "nodes.csv", tmp_path / "edges.csv")
    assert first.digest == second.digest == graph().digest
    third = read_graph(tmp_path / "g.pt")
    assert third.nodes.tolist() == list(range(6)) and np.array_equal(third.edges + 10, first.edges)


def test_names_of_a_table_can_be_asked_for(tmp_path):
    (tmp_path / "nodes.csv").write_text("node,label,a\nann,0,1\nbob,1,2\ncy,0,3\n")
    (tmp_path / "edges.csv").write_text("from,to\nann,bob\nbob,cy\n")
    made = read_graph(tmp_path / "nodes.csv", tmp_path / "edges.csv")
    after = Deletion.of(made, asked(Target("node", {"names": ["bob"]}))).after
    assert after.called is not None and after.called.tolist() == ["ann", "cy"] and not len(after.edges)
    with pytest.raises(InputError, match="the name 'dan'"):
        Deletion.of(made, asked(Target("node", {"names": ["dan"]})))


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        ("node,label,a\n1,0,1\n2,1,2\n", "from,to\n1.0,2\n", "in two ways"),
        ("node,label,a\n1,0,1\n01,1,2\n", "from,to\n1,01\n", "in two ways"),
        ("node,label,a\n1,0,1\n1,1,2\n", "from,to\n1,1\n", "'1' twice"),
        ("node,label,a\n1,0,x\n2,1,2\n", "from,to\n1,2\n", "numbers in column a"),
        ("node,label,a\n1,b,1\n2,1,2\n", "from,to\n1,2\n", "labels in whole numbers"),
        ("node,label,a\n1,0,1\n2,1,2\n", "from,to\n1,5\n", "names '5'"),
        ("node,label,a\n1,0,1\n2,1,2\n", "from,to,w\n1,2,1\n", "two columns"),
        ("node,label,a\n1,0,nan\n2,1,2\n", "from,to\n1,2\n", "NaN"),
        ("node,class,a\n1,0,1\n2,1,2\n", "from,to\n1,2\n", "no column 'label'"),
    ],
)
def test_tables_that_cannot_be_read_with_certainty_are_refused(tmp_path, nodes, edges, message):
    (tmp_path / "nodes.csv").write_text(nodes)
    (tmp_path / "edges.csv").write_text(edges)
    with pytest.raises(InputError, match=message):
        read_graph(tmp_path / "nodes.csv", tmp_path / "edges.csv")


def test_graphml_is_read_and_a_node_under_two_types_is_refused(tmp_path):
    networkx = pytest.importorskip("networkx")
    made = networkx.Graph()
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        made.add_node(10 + i, a=float(x[0]), b=float(x[1]), c=float(x[2]), label=int(y) if y >= 0 else "")
    for name in made.nodes:
        if made.nodes[name]["label"] == "":
            del made.nodes[name]["label"]
    made.add_edges_from(PATH)
    networkx.write_graphml(made, tmp_path / "g.graphml")
    assert read_graph(tmp_path / "g.graphml").digest == graph().digest
    made.add_node("01", a=1.0, b=1.0, c=1.0, label=0)
    made.add_node("1", a=1.0, b=1.0, c=1.0, label=0)
    networkx.write_graphml(made, tmp_path / "twice.graphml")
    with pytest.raises(InputError, match="in two ways"):
        read_graph(tmp_path / "twice.graphml")


@pytest.mark.parametrize("word", ["nan", "inf", "9" * 30, "9" * 5000], ids=lambda word: word[:5])
def test_names_that_are_numbers_beyond_the_whole_ones_are_names(tmp_path, word):
    (tmp_path / "nodes.csv").write_text(f"node,label,a\n{word},0,1\nb,1,2\n")
    (tmp_path / "edges.csv").write_text(f"from,to\n{word},b\n")
    made = read_graph(tmp_path / "nodes.csv", tmp_path / "edges.csv")
    assert made.called is not None and made.called.tolist() == [word, "b"] and made.edges.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("y", torch.tensor(1)),
        ("y", torch.zeros(3).to_sparse()),
        ("x", torch.zeros(3, 2, dtype=torch.bfloat16)),
        ("nodes", torch.ones(1).expand(1 << 34)),
        ("edge_index", torch.zeros(3)),
    ],
    ids=str,
)
def test_tensors_that_no_graph_has_are_refused_in_words(tmp_path, part, value):
    good = {"x": torch.ones(3, 2), "y": torch.tensor([0, 1, 0]), "edge_index": torch.tensor([[0, 1], [1, 2]])}
    torch.save({**good, part: value}, tmp_path / "g.pt")
    with pytest.raises(InputError, match=r"g\.pt"):
        read_graph(tmp_path / "g.pt")


def test_a_file_of_weights_that_holds_code_is_refused(tmp_path):
    torch.save({"x": Calls()}, tmp_path / "g.pt")
    with pytest.raises(InputError, match=r"g\.pt was refused"):
        read_graph(tmp_path / "g.pt")
    with pytest.raises(InputError, match="no file"):
        read_graph(tmp_path / "absent.npz")
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"bad\.npz"):
        read_graph(tmp_path / "bad.npz")


# --- made-up graphs and splits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["small", "cora_like", "heterophilic"])
def test_block_models_have_their_sizes_and_homophily(preset):
    made, size = block_model(preset), PRESETS[preset]
    assert (len(made.nodes), made.x.shape[1], made.label_count) == (size.nodes, size.columns, size.classes)
    assert len(made.edges) == size.edges
    same = (made.y[made.ends[:, 0]] == made.y[made.ends[:, 1]]).mean()
    assert same == pytest.approx(size.homophily, abs=4 * (0.25 / size.edges) ** 0.5 + 0.01)
    assert block_model(preset).digest == made.digest != block_model(preset, 1).digest


def test_splits_share_out_every_label_once():
    made = block_model("small")
    for train, sets in (shares(made, 0.5, 0.2, 0), per_class(made, 20, 50, 0)):
        parts = [train.examples, *(each.examples for each in sets.values())]
        together = np.concatenate(parts)
        assert len(np.unique(together)) == len(together) == len(made)
    assert (
        np.bincount(per_class(made, 20, 50, 0)[0].labels(per_class(made, 20, 50, 0)[0].examples)).tolist() == [20] * 3
    )
    with pytest.raises(InputError, match="smallest class"):
        per_class(made, 200, 0, 0)
    with pytest.raises(InputError, match="leave some"):
        shares(made, 0.9, 0.2, 0)


def test_ids_that_are_gone_touch_nothing():
    assert not len(graph(depth=2).touched(Ids({"node": np.array([999])})))
