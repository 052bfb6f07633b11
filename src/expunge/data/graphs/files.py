"""A user's own graph, and Coauthor CS and Physics, from files that hold plain numbers and texts.

========================  =========================================================================================
``.npz``                  arrays ``x`` (n, d), ``y`` (n,), ``edges`` (m, 2) and perhaps ``nodes`` (n,), ids; or the layout of
                          gnn-benchmark: ``adj_*``, ``attr_*`` and ``labels``
``.pt``                   a mapping with tensors ``x``, ``y`` and ``edge_index`` (2, m) (or ``edges``); read weights-only
two tables                ``nodes.csv``: a column of ids (or names), one of labels, all others are features; ``edges.csv``: two
                          columns, the ends of each edge
``.graphml``              nodes with numeric attributes, one of them the label; needs networkx
========================  =========================================================================================
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
from scipy import sparse

from expunge.core.errors import InputError, foreign
from expunge.data.arrays import read_npz
from expunge.data.bounds import largest
from expunge.data.csv_files import open_csv
from expunge.data.graphs import names
from expunge.data.graphs.graph import Graph
from expunge.data.places import located
from expunge.data.rows import by_reader
from expunge.data.torch_files import read_torch

AS_THEY_ARE = by_reader("fixed", "features are those of the file")
COAUTHOR = {
    "CS": ("ms_academic_cs.npz", (18333, 81894, 6805, 15)),
    "Physics": ("ms_academic_phy.npz", (34493, 247962, 8415, 5)),
}
_BENCHMARK = (
    "adj_data",
    "adj_indices",
    "adj_indptr",
    "adj_shape",
    "attr_data",
    "attr_indices",
    "attr_indptr",
    "attr_shape",
)
_DIGITS = 18  # of a whole number that 64 bits surely hold
_MISSING = ("", "na", "nan", "null", "none", "?")


def coauthor(name: str, root: str | Path | None = None) -> Graph:
    """Coauthor CS or Physics (Shchur et al. 2018, arXiv 1811.05868): every node labelled, keywords as zeros and ones.

    There is no published split: take one with ``data.graphs.splits``.

    Raises:
        InputError: for another name, a missing or damaged file, or one that holds another graph.
    """
    if name not in COAUTHOR:
        raise InputError(f"Expected a Coauthor graph among {', '.join(COAUTHOR)}; got {name!r}.")
    file, sizes = COAUTHOR[name]
    get = f"Get {file} from the folder data/npz of the repository shchur/gnn-benchmark on GitHub."
    folder = located(root, [f"coauthor/{name}/raw", f"{name}/raw"], [file], get)
    graph = read_graph(folder / file)
    found = (len(graph.nodes), len(graph.edges), graph.width, graph.label_count)
    if found != sizes:
        raise InputError(
            f"Expected Coauthor {name} with nodes, edges, columns and classes {sizes}; {file} has {found}."
        )
    return graph


def read_graph(
    path: Path, edges: Path | None = None, *, label: str = "label", node: str = "node", scale: str = "none"
) -> Graph:
    """A graph from ``path``; of two tables ``path`` is that of the nodes and ``edges`` that of the edges.

    Args:
        label, node: the columns of labels and of ids (or names) in a table, and the attribute of labels in GraphML.
        scale: as ``Graph`` has it.

    Raises:
        InputError: for a missing or damaged file, another kind of file, or content that no graph can have; it names the file.
    """
    for each in (path, edges):
        if each is not None and not each.is_file():
            raise InputError(
                f"There is no file {each}; give .npz, .pt, .graphml, or two tables (nodes and edges, .csv)."
            )
    readers = {".npz": _npz, ".pt": _pt, ".graphml": _graphml, ".csv": _csv}
    if path.suffix not in readers:
        raise InputError(f"Expected a graph in .npz, .pt, .graphml or .csv; got {path.name}.")
    if (path.suffix == ".csv") != (edges is not None):
        raise InputError(
            "Expected two tables for a graph in .csv, its nodes (path) and its edges (edges), and one file else."
        )
    try:
        parts = readers[path.suffix](path, edges, label, node)
        return Graph.of(**parts, scale=scale, preprocessing=AS_THEY_ARE)
    except InputError as error:
        known = str(error)
        raise InputError(known if path.name in known else f"{path.name}: {known}") from None


def _damaged(error: Exception) -> str:
    return f"It is damaged or holds something else ({type(error).__name__}: {error!s:.120})."


def _npz(path: Path, *_: Any) -> dict[str, Any]:
    arrays = read_npz(path)
    if {*_BENCHMARK, "labels"} <= arrays.keys():
        return _benchmark(arrays)
    return _named(arrays, path)


def _named(arrays: Any, path: Path) -> dict[str, Any]:
    edges = arrays.get("edges")
    if edges is None and (index := arrays.get("edge_index")) is not None:
        edges = np.asarray(index)
        if edges.ndim != 2 or edges.shape[0] != 2:
            raise InputError(f"Expected edge_index of shape (2, m); got {edges.shape}. Or give edges of shape (m, 2).")
        edges = edges.T
    if edges is None or not {"x", "y"} <= arrays.keys():
        raise InputError(f"Expected x, y and edges in {path.name}; it has {', '.join(map(str, arrays)) or 'nothing'}.")
    pairs = np.asarray(edges)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError(f"Expected edges of shape (m, 2); got {pairs.shape}.")
    nodes = arrays.get("nodes")
    for name, array in (("y", arrays["y"]), ("nodes", nodes)):
        if array is not None and np.ndim(array) != 1:
            raise InputError(f"Expected one value for each node in {name}; it has the shape {np.shape(array)}.")
    return {"x": arrays["x"], "y": arrays["y"], "edges": pairs, "nodes": nodes}


def _benchmark(arrays: Any) -> dict[str, Any]:
    """The layout of gnn-benchmark: attributes above zero count as one, self-loops are left out, directions are forgotten."""
    for name in (*_BENCHMARK, "labels"):
        array, kinds = arrays[name], "fiub" if name.endswith("_data") else "iu"
        if array.ndim != 1 or array.dtype.kind not in kinds:
            raise InputError(f"Expected numbers in one row as {name}; got {array.dtype} of shape {array.shape}.")

    def matrix(name: str) -> sparse.csr_array:
        with foreign(_damaged, ValueError, TypeError, IndexError, OverflowError):
            made = sparse.csr_array(
                (arrays[f"{name}_data"], arrays[f"{name}_indices"], arrays[f"{name}_indptr"]),
                shape=tuple(map(int, arrays[f"{name}_shape"])),
            )
            made.check_format()
        return made

    x, adjacency = matrix("attr"), matrix("adj").tocoo()
    x.data = (x.data > 0).astype(np.float32)
    pairs = np.stack([adjacency.row, adjacency.col], 1).astype(np.int64)
    pairs = pairs[(pairs[:, 0] != pairs[:, 1]) & (adjacency.data != 0)]
    classes = tuple(map(str, arrays["class_names"])) if "class_names" in arrays else ()
    return {"x": x, "y": arrays["labels"], "edges": names.edges(np.unique(names.of_edges(pairs))), "classes": classes}


def _pt(path: Path, *_: Any) -> dict[str, Any]:
    import torch

    content = read_torch(path)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(
            f"Expected a mapping with tensors x, y and edge_index in {path.name}; it holds {type(content).__name__}."
        )
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    most = largest(path.stat().st_size)
    if claims := [name for name, value in tensors.items() if value.numel() * value.element_size() > most]:
        raise InputError(
            f"{path.name} claims more for {claims[0]} than it can hold: {tuple(tensors[claims[0]].shape)}."
        )
    with foreign(_damaged, TypeError, RuntimeError, ValueError):  # sparse tensors, types that NumPy lacks, no memory
        arrays = {name: value.detach().numpy() for name, value in tensors.items() if name != "x"}
        if "x" in tensors:
            x = tensors["x"] if tensors["x"].layout is torch.strided else tensors["x"].to_dense()
            arrays["x"] = x.detach().numpy()
    return _named(arrays, path)


def _csv(path: Path, edges: Path | None, label: str, node: str) -> dict[str, Any]:
    assert edges is not None
    table, pairs = open_csv(path), open_csv(edges)
    for name in (node, label):
        if name not in table.names:
            raise InputError(f"{path.name} has no column {name!r}; it has {', '.join(table.names)}.")
    if len(pairs.names) != 2:
        raise InputError(
            f"Expected two columns in {edges.name}, the ends of each edge; it has {', '.join(pairs.names)}."
        )
    called = _texts(table, node)
    features = [name for name in table.names if name not in (node, label)]
    if not features:
        raise InputError(f"{path.name} has no column of features besides {node} and {label}.")
    x = np.stack([_numbers(table, name, path) for name in features], 1)
    y = np.array([_label(text, path) for text in _texts(table, label)], dtype=np.int64)
    ends = [_texts(pairs, name) for name in pairs.names]
    return {"x": x, "y": y, **_by_name(called, list(zip(*ends, strict=True)), path, edges)}


def _texts(table: Any, name: str) -> list[str]:
    return [str(text).strip() for text in table.read([name])[name]]


def _numbers(table: Any, name: str, path: Path) -> np.ndarray:
    texts = _texts(table, name)
    try:
        return np.array([float(text) for text in texts], dtype=np.float32)
    except ValueError:
        bad = next(i for i, text in enumerate(texts) if not _is_number(text))
        raise InputError(
            f"Expected numbers in column {name} of {path.name}; row {bad + 1} has {texts[bad]!r:.40}."
        ) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _label(text: str, path: Path) -> int:
    if text.lower() in _MISSING:
        return -1
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS:
        raise InputError(f"Expected labels in whole numbers from 0, or nothing, in {path.name}; got {text!r:.40}.")
    return int(text)


def _by_name(called: list[str], pairs: list[tuple[str, str]], nodes: Path, edges: Path) -> dict[str, Any]:
    """Ids of nodes and edges from what both files write; whole numbers are the ids themselves."""
    number = {text: int(text) for text in called if text.isascii() and text.isdigit() and len(text) <= _DIGITS}
    spelled: dict[int, str] = {}
    for text in [*called, *(end for pair in pairs for end in pair)]:
        value = _as_number(text)
        if value is not None and spelled.setdefault(value, text) != text:
            raise InputError(
                f"{nodes.name} and {edges.name} write one node in two ways, {spelled[value]!r} and {text!r}: whether they are "
                "one node cannot be known. Write every node in one way."
            )
    if len(set(called)) != len(called):
        twice = Counter(called).most_common(1)[0][0]
        raise InputError(f"{nodes.name} names the node {twice!r} twice. Keep one row for each node.")
    whole = len(number) == len(called)
    ids = {text: number[text] if whole else i for i, text in enumerate(called)}
    unknown = sorted({end for pair in pairs for end in pair} - ids.keys())
    if unknown:
        raise InputError(
            f"{edges.name} names {unknown[0]!r:.40} and {len(unknown) - 1} more that {nodes.name} does not have."
        )
    found = np.array([[ids[first], ids[second]] for first, second in pairs], dtype=np.int64).reshape(-1, 2)
    return {
        "nodes": np.array([ids[text] for text in called]),
        "edges": found,
        "called": None if whole else np.array(called),
    }


def _as_number(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if math.isfinite(value) and value == int(value) else None


def _graphml(path: Path, _: Any, label: str, __: str) -> dict[str, Any]:
    try:
        import networkx
    except ImportError as error:
        raise InputError(
            f"GraphML is read with networkx, which is not installed ({error}). Install it: pip install networkx."
        ) from None
    with foreign(
        _damaged, ParseError, networkx.NetworkXError, ValueError, LookupError, TypeError, AttributeError, OverflowError
    ):
        content = networkx.read_graphml(path)
    if content.is_directed() or content.is_multigraph():
        raise InputError(f"Expected an undirected graph with at most one edge between two nodes in {path.name}.")
    nodes = list(content.nodes(data=True))
    if len({str(name) for name, _ in nodes}) != len(nodes):
        raise InputError(f"{path.name} names a node twice under two types (1 and '1'). Write every node in one way.")
    features = sorted({name for _, values in nodes for name in values} - {label})
    if not features:
        raise InputError(f"Expected numeric attributes of nodes besides {label!r} in {path.name}; there are none.")
    for name, values in nodes:
        odd = [f for f in features if not isinstance(values.get(f), int | float) or isinstance(values.get(f), bool)]
        if odd:
            raise InputError(
                f"Expected a number as {odd[0]!r} of every node in {path.name}; node {name} has {values.get(odd[0])!r:.40}."
            )
    with foreign(_damaged, OverflowError):  # of whole numbers beyond every other one
        x = np.array([[float(values[name]) for name in features] for _, values in nodes], dtype=np.float32)
    y = [_label(str(values.get(label, "")), path) for _, values in nodes]
    pairs = [(str(a), str(b)) for a, b in content.edges()]
    return {"x": x, "y": np.array(y), **_by_name([str(name) for name, _ in nodes], pairs, path, path)}
