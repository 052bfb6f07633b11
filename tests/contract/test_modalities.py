"""Every kind of model × a job × its evidence × a benchmark, two toy kinds included that live here and not in the product."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tests.bench import tiny
from tests.contract.packages import package
from tests.contract.toy_modalities import ENTRY_POINTS, authored, moved_away
from tests.diffusion import tiny as diffusion
from tests.product import stars
from tests.product.conftest import ROOT, SMALL
from tests.product.language import write_job

from expunge import modalities
from expunge.bench.cells import Cell, run_cell
from expunge.bench.page import write_page
from expunge.bench.recipe import load_recipe
from expunge.bench.run import BenchSettings, bench, fingerprint
from expunge.bench.world import World
from expunge.cli.bench_output import show_bench
from expunge.core.cache import Cache
from expunge.core.digest import digest_arrays
from expunge.core.errors import InputError
from expunge.core.request import Kind
from expunge.evidence.comparison import Draws, Speaks
from expunge.jobs.advice import advise, dry_run
from expunge.jobs.run import run_job, shown
from expunge.jobs.schema import load_job
from expunge.metrics.catalogue import column
from expunge.metrics.outcomes import Word
from expunge.modalities.classification import ClassificationModality
from expunge.modalities.readings import MeanLosses, reads
from expunge.report.folder import models_of
from expunge.report.verify import verify_folder

SOURCES = ROOT / "src" / "expunge"
TOYS = {
    "ring": {
        "task": "ring", "model": {"n": 3}, "data": {"n": 12}, "training": {"kind": "closed_form"},
        "request": {"subject": "a", "targets": [{"kind": "edge", "where": {"ids": [13, 15]}}]},
        "method": {"name": "retrain"}, "evidence": {"replicates": 0, "pdf": False},
    },
    "peers": {
        "task": "peers", "model": {"n": 3}, "data": {"n": 20}, "training": {"kind": "closed_form"},
        "request": {"subject": "a", "targets": [{"kind": "client", "where": {"owner": 2}}]},
        "method": {"name": "gossip_correction"}, "evidence": {"replicates": 0, "pdf": False},
    },
}  # fmt: skip
GRAPH = {
    "task": "graph", "model": "gcn", "data": {"format": "block_model", "preset": "small"},
    "training": {"kind": "whole_graph", "epochs": 20},
    "request": {"subject": "a", "targets": [{"kind": "node", "where": {"ids": [1, 5]}}]},
    "method": {"name": "fine_tune", "epochs": 1}, "evidence": {"replicates": 0, "pdf": False},
}  # fmt: skip
KINDS = ["classification", "diffusion", "graph", "language", "vision_language", *TOYS]
_TOY = {"model": {"n": 3}, "training": {"kind": "closed_form"}, "retrained_models": 1, "seeds": 1}
RECIPES = {
    "ring": _TOY | {
        "data": {"n": 12}, "kind": "edge", "where": [{"ids": [13, 15]}],
        "methods": {"exact": {"method": "retrain"}, "l1_sparse": {}},
    },
    "peers": _TOY | {
        "data": {"n": 20}, "kind": "client", "where": [{"owner": 2}],
        "methods": {"gossip_correction": {}, "away": {}, "away@authored": {"method": "away"}},
    },
    "classification": {"retrained_models": 2, "seeds": 1, "methods": {"fine_tune": {"epochs": 1}, "no_op": {}}},
    "graph": {
        "model": "gcn", "data": {"format": "block_model", "preset": "small"},
        "training": {"kind": "whole_graph", "epochs": 20}, "forget": {"kind": "node", "share": 0.1}, "retrained_models": 3,
        "seeds": 1, "methods": {"retrain_again": {"method": "retrain"}, "utu": {}},
    },
    "diffusion": diffusion.RECIPE,
    "vision_language": {  # its two models come with the package
        "seeds": 1, "items": {"ga": {"material": "recognition"}},
        "methods": {"siu": {"steps": 2, "lr": 0.003}, "ga": {"steps": 2, "lr": 0.001, "lora": {}, "warmup": 0.0}},
    },
    "language": {
        "world": {"kind": "micro", "entities": 3, "cities": 0, "forget": 1,
                  "model": {"width": 32, "layers": 1, "heads": 2, "inner": 32}},
        "training": {"steps": 120, "batch_size": 18, "lr": 0.01}, "seeds": 1, "retrained_models": 1,
        "methods": {"grad_diff": {"steps": 2, "batch_size": 6}, "grad_diff@attack_all": {}},
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """The toys as an installed package declares them; keys and cache of a fresh machine."""
    with package("toys", ENTRY_POINTS, tmp_path, monkeypatch):
        yield


def job_of(kind: str, folder: Path) -> Path:
    if kind == "diffusion":
        return diffusion.write_job(folder)
    if kind == "vision_language":
        return stars.write_job(folder)
    if kind == "language":
        return write_job(folder, method={"name": "grad_diff", "steps": 2})
    path = folder / "job.yaml"
    content = (
        TOYS[kind]
        if kind in TOYS
        else GRAPH
        if kind == "graph"
        else yaml.safe_load(SMALL) | {"publish": None, "method": {"name": "fine_tune", "epochs": 1}}
    )
    path.write_text(yaml.safe_dump(content))
    return path


def test_every_kind_of_model_is_tried_here():
    assert sorted(KINDS) == modalities.names()


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_every_kind_is_tried_and_advised_on_without_writing(kind, tmp_path):
    job = load_job(job_of(kind, tmp_path))
    before = sorted(tmp_path.rglob("*"))
    tried, advised = dry_run(job), advise(job)
    assert tried["matched"]["count"] == advised["matched"] and tried["absent"] == advised["absent"]
    assert tried["matched"]["count"] > 0 or tried["absent"] > 0  # a concept is forgotten through authored material
    assert tried["estimate"].keys() >= {"seconds", "memory_bytes"}
    own = next(item for item in advised["candidates"] if item["method"] == job.method["name"])
    assert own["can"] and own["promises"] == tried["promises"]
    new = set(tmp_path.rglob("*")) - set(before)
    assert not {path for path in new if "home" not in path.parts and "cache" not in path.parts}


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_every_kind_leaves_evidence_that_verifies(kind, tmp_path):
    done = run_job(job_of(kind, tmp_path), (), tmp_path / "out")
    record = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert record["request"]["matched"]["count"] > 0 or record["data"]["absent"] > 0
    assert record["runs"][0]["evidence"]["measurements"]
    assert done["runs"][0]["verdict"] == record["runs"][0]["verdict"]
    result = verify_folder(tmp_path / "out")
    assert result.consistent, [check for check in result.checks if not check.ok]
    # what a person sees, and nobody else; a table's rows are no images
    (whole,) = json.loads((tmp_path / "out.private" / "review.json").read_text())["runs"]
    seen = [*whole.get("answers", ()), *whole.get("pictures", ())]
    shows = isinstance(modalities.load(kind), Draws | Speaks) and not isinstance(
        modalities.load(kind), ClassificationModality
    )
    assert bool(seen) == shows and not {"answers", "pictures"} & record["runs"][0].keys()
    page, image = (tmp_path / "out.private" / "review.html").read_text(), "data:image/png"
    assert (image in page) == (image in json.dumps(seen))
    assert all("before" in item and "after" in item and "retrained" in item for item in seen)
    assert not any(image in (tmp_path / "out" / name).read_text() for name in ("report.html", "evidence.json"))
    again = run_job(job_of(kind, tmp_path), (), tmp_path / "out")
    assert again == done


def recipe_of(kind: str, folder: Path) -> Path:
    if kind == "classification":
        return tiny.write(folder, name=f"{kind}.yaml", **RECIPES[kind])
    if kind == "diffusion":
        diffusion.write_arrays(folder)
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump({"name": kind, "title": f"A {kind}", "task": kind, **RECIPES[kind]}))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_benchmark_of_every_kind_makes_a_table_and_a_page(kind, tmp_path, capsys):
    recipe = load_recipe(str(recipe_of(kind, tmp_path)))
    record = bench(recipe, tmp_path / "out", BenchSettings(jobs=1), cache=Cache(tmp_path / "cache"))
    assert record["task"] == kind == recipe.task and isinstance(recipe, modalities.load(kind).benchmark.recipe)
    assert record["reference"]["metrics"] and record["source"]["metrics"] and record["n_forget"]
    for row in record["rows"]:
        judged = bool(row["metrics"])
        assert (row["outcome"] in {*Word}) == judged == (row["outcome"] == row["verdict"]) and row["reason"]
        for name, item in row["metrics"].items():
            metric = column(name)
            assert metric is not None and (item["direction"], item["metric"]) != ("", ""), name
    assert any(row["metrics"] for row in record["rows"])
    page = write_page(record, tmp_path / "page")["html"].read_text()
    show_bench(record, False)
    shown = capsys.readouterr().out
    assert all(row["method"].replace("+", "+<wbr>") in page and row["method"] in shown for row in record["rows"])
    assert "not in the catalogue" not in page and modalities.load(kind).benchmark.layout.meaning[-20:] in page
    again = bench(recipe, tmp_path / "out", BenchSettings(jobs=1), cache=Cache(tmp_path / "cache"))
    assert fingerprint(again) == fingerprint(record)


def test_a_toy_that_does_it_again_forgets_and_a_method_for_other_targets_is_refused(tmp_path):
    record = bench(
        str(recipe_of("ring", tmp_path)), tmp_path / "out", BenchSettings(jobs=1), cache=Cache(tmp_path / "c")
    )
    exact, tuned = record["rows"]
    assert exact["outcome"] == "forgets" and exact["metrics"]["distance"]["mean"] == 0
    assert tuned["verdict"] == "refused" and tuned["outcome"] is None
    assert record["source"]["metrics"]["distance"]["mean"] > 0


def test_authored_material_reaches_the_method_in_place_of_what_was_learnt(tmp_path):
    """And what is measured and what is retrained stay with the examples that the request names."""
    world = World.of(load_recipe(str(recipe_of("peers", tmp_path))), Cache(tmp_path / "cache"))
    theta = world.models([0])["source", 0, 0].tensors["theta"]
    shown = {"away": world.deletion(0).forget, "away@authored": authored(3)}
    for row, data in shown.items():
        line, _ = run_cell(world, Cell(row, 0, 0), tmp_path)
        assert line["weights"] == digest_arrays({"theta": moved_away(theta, data)}), row
        assert line["n_forget"] == world.deletion(0).size == 4


def test_an_unknown_task_is_refused_with_the_names_known(tmp_path):
    (tmp_path / "recipe.yaml").write_text("task: nope\nname: nope\n")
    with pytest.raises(
        InputError,
        match=r"Expected task among classification, diffusion, graph, language, peers, ring, vision_language; got 'nope'",
    ):
        load_recipe(str(tmp_path / "recipe.yaml"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_model_says_everything_that_jobs_ask_of_it(kind, tmp_path):
    modality = modalities.load(kind)
    assert modality.name == kind and {*modality.kinds} <= {*Kind} and isinstance(modality.in_processes, bool)
    job = load_job(job_of(kind, tmp_path))
    assert isinstance(job, modality.job) and {target.kind for target in job.request.targets} <= {*modality.kinds}
    assert str(tmp_path) not in shown(job) and job.request.subject not in yaml.safe_load(shown(job))["request"].values()


def test_retained_examples_that_change_are_measured(tmp_path):
    """Two edges of the ring go, four nodes that stay see other neighbours."""
    run_job(job_of("ring", tmp_path), (), tmp_path / "out")
    full = json.loads((tmp_path / "out.private" / "review.json").read_text())
    names = {item["name"]: item for item in full["runs"][0]["evidence"]["measurements"]}
    assert names["loss/touched"]["n"] == 4 and names["distance to retrained"]["value"] == 0
    assert full["runs"][0]["verdict"] == "certified-under-declared-constants"


def test_every_peer_has_its_release_in_the_folder(tmp_path):
    run_job(job_of("peers", tmp_path), (), tmp_path / "out")
    record = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert len({model["digest"] for model in models_of(record)}) == 2
    assert len(list((tmp_path / "out" / "models").rglob("*.safetensors"))) == 2


def test_no_kind_of_model_needs_to_say_how_it_is_measured(tmp_path):
    """One that does is found by the task's name; the mean loss of each set stands in for one that does not."""
    run_job(job_of("ring", tmp_path), (), tmp_path / "out")
    full = json.loads((tmp_path / "out.private" / "review.json").read_text())
    metrics = {item["metric"] for item in full["runs"][0]["evidence"]["measurements"]}
    assert metrics == {"loss", "distance"}
    assert isinstance(reads(SimpleNamespace(name="nobody's")), MeanLosses)  # type: ignore[arg-type]
    for kind in ("classification", "diffusion", "graph", "language", "vision_language"):
        assert reads(SimpleNamespace(name=kind)) is modalities.load(kind)  # type: ignore[arg-type]


ABOVE = [
    path for folder in ("jobs", "planning", "bench", "evidence", "report") for path in (SOURCES / folder).rglob("*.py")
]
ABOVE += [SOURCES / name for name in ("measuring.py", "auditing.py", "checking.py", "cli/bench_output.py")]


@pytest.mark.parametrize("path", ABOVE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nothing_above_the_modalities_asks_which_kind_of_model_it_has(path):
    """No comparison with a task's name, and in benchmarks no class of a kind of model that anything could be asked for."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare | ast.Dict):
            within = [node, *(node.keys if isinstance(node, ast.Dict) else [])]
            constants = {c.value for each in within if each for c in ast.walk(each) if isinstance(c, ast.Constant)}
            assert not {"classification", "diffusion", "graph", "language", "vision_language"} & constants, (
                f"{path.name}:{node.lineno}"
            )
        if isinstance(node, ast.ImportFrom) and path.parent.name in ("bench", "cli"):
            own = (
                "expunge.tasks",
                "expunge.modalities.classification",
                "expunge.modalities.diffusion",
                "expunge.modalities.graph",
                "expunge.modalities.language",
                "expunge.modalities.vision_language",
            )
            assert not str(node.module).startswith(own), f"{path.name}:{node.lineno} imports from {node.module}"
