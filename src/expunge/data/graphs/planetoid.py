"""Cora, CiteSeer and PubMed in the eight files each that they were published in (Planetoid), and nothing else needed.

The files are pickles of Python 2; ``data.plain_pickles`` reads them without running anything. No network is touched and nothing
is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from expunge.core.errors import InputError, foreign
from expunge.data.graphs import names
from expunge.data.graphs.graph import Graph
from expunge.data.places import located
from expunge.data.plain_pickles import NUMBERS, Refused, read_pickle, settled
from expunge.data.rows import by_reader

# nodes, undirected edges, columns and classes; and labels of the public split (all measured on the published files)
SIZES = {"Cora": (2708, 5278, 1433, 7), "CiteSeer": (3327, 4552, 3703, 6), "PubMed": (19717, 44324, 500, 3)}
VALIDATION, TEST = 500, 1000
PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
LARGEST = 2**26  # bytes of a file; PubMed's features have 11 million
_GET = "Get the eight files ind.NAME.* from the data folder of the repository kimiyoung/planetoid on GitHub."


def planetoid(name: str, root: str | Path | None = None) -> tuple[Graph, dict[str, Graph]]:
    """The graph with its public training nodes as examples, and the sets ``validation`` (500) and ``test`` (1,000).

    A node's id is its position in the published order. Features are scaled to sum 1 for each node, as Kipf and Welling 2017
    (arXiv 1609.02907, section 5.2) do it; a node's scale depends on its own features alone.

    CiteSeer has 15 nodes without features, edges or label; tables of its classes that count 264 of class 0 take them for
    members of that class. Here their label is unknown.

    Args:
        name: Cora, CiteSeer or PubMed.
        root: a folder of data sets (``EXPUNGE_DATA`` by default) with ``planetoid/NAME/raw``, or one of these folders.

    Raises:
        InputError: for another name, a missing or damaged file, or files that hold another graph.

    Source: Yang et al. 2016 (arXiv 1603.08861) published files and split.
    """
    if name not in SIZES:
        raise InputError(f"Expected a graph among {', '.join(SIZES)}; got {name!r}.")
    files = [f"ind.{name.lower()}.{part}" for part in PARTS]
    folder = located(root, [f"planetoid/{name}/raw", f"{name}/raw"], files, _GET)
    if absent := [file for file in files if not (folder / file).is_file()]:
        raise InputError(f"There is no {absent[0]} in {folder}; {name} needs all eight files. {_GET}")
    x, y, edges, train, test = _assembled(folder, name)
    whole = Graph.of(x, y, edges, examples=np.arange(train), scale="rows", preprocessing=_PREPARED)
    sizes = (len(whole.nodes), len(whole.edges), whole.width, whole.label_count)
    if sizes != SIZES[name]:
        raise InputError(
            f"Expected {name} with nodes, edges, columns and classes {SIZES[name]}; the files have {sizes}."
        )
    return whole, {"validation": whole.on(np.arange(train, train + VALIDATION)), "test": whole.on(test)}


_PREPARED = by_reader("fixed", "each node's features are scaled by their own sum")


def _assembled(folder: Path, name: str) -> tuple[sparse.csr_array, np.ndarray, np.ndarray, int, np.ndarray]:
    """Features, labels, edges, how many training nodes come first, and the test nodes."""
    read = {part: _read(folder / f"ind.{name.lower()}.{part}") for part in PARTS[:-1]}
    listed = folder / f"ind.{name.lower()}.test.index"
    with foreign(lambda error: f"{listed.name} is damaged ({error!s:.80}). Get it anew.", ValueError, OverflowError):
        order = np.array(listed.read_text().split(), dtype=np.int64)
    first = read["allx"].shape[0]
    fits = len(order) == read["tx"].shape[0] == len(read["ty"]) and first == len(read["ally"])
    in_range = len(order) and first <= order.min() and order.max() < SIZES[name][0]
    if not fits or not in_range or read["allx"].shape[1] != read["tx"].shape[1]:
        raise InputError(f"The files of {name} do not belong together: they count different nodes or columns. {_GET}")
    total = int(order.max()) + 1
    gap = total - first  # CiteSeer lists fewer test nodes than positions: 15 isolated nodes, unlabelled
    tx = sparse.lil_array((gap, read["tx"].shape[1]), dtype=np.float32)
    tx[order - first] = read["tx"]
    labels = np.full(total, -1, dtype=np.int64)
    for at, one_hot in ((np.arange(first), read["ally"]), (order, read["ty"])):
        labels[at] = np.where(one_hot.any(1), one_hot.argmax(1), -1)
    pairs = np.array([(a, b) for a, neighbours in read["graph"].items() for b in neighbours if a != b], dtype=np.int64)
    edges = names.edges(np.unique(names.of_edges(pairs)))
    return sparse.csr_array(sparse.vstack([read["allx"], sparse.csr_array(tx)])), labels, edges, len(read["y"]), order


class _Sparse:
    """Stands in for SciPy's matrix while reading."""

    __slots__ = ("state",)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise Refused("a matrix without parts")
        self.state = {key: settled(value) for key, value in state.items()}


_KNOWN = {
    ("scipy.sparse.csr", "csr_matrix"): _Sparse,
    ("collections", "defaultdict"): lambda room, *_: {},
    ("__builtin__", "list"): lambda room, *_: [],
}


def _read(path: Path) -> Any:
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path.name} has {path.stat().st_size} bytes, more than any file of Planetoid.")
    content = read_pickle(path, "no file of Planetoid", types=NUMBERS, known=_KNOWN)
    kind = path.suffix.removeprefix(".")
    try:
        if kind == "graph":
            return {int(node): [int(other) for other in others] for node, others in content.items()}
        if kind in ("y", "ty", "ally"):
            return np.asarray(content).reshape(len(content), -1)
        parts = content.state
        made = sparse.csr_array((parts["data"], parts["indices"], parts["indptr"]), shape=parts["_shape"])
        made.check_format()
        return made
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # parts of other shapes or types
        raise InputError(f"{path.name} is damaged or no file of Planetoid ({error!s:.100}). Get it anew.") from None
