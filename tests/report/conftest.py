from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from expunge.core.digest import digest_file, digest_json
from expunge.core.method import Outcome
from expunge.ledger import Ledger
from expunge.model_folder import PUBLISHED, release_item
from expunge.report import folder as folders
from expunge.report import html
from expunge.requests_book import RequestBook

from . import worlds


@pytest.fixture(scope="session")
def certified() -> Outcome:
    return worlds.outcome()


@pytest.fixture(scope="session")
def record(certified: Outcome) -> dict:
    return worlds.record_of(certified)


@pytest.fixture
def cheap_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is a function of the record but draws nothing, for tests that are not about pages."""
    monkeypatch.setattr(html, "render", lambda record: f"<p>{digest_json(record)}</p>")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, certified: Outcome) -> Path:
    """A whole evidence folder with a live ledger and private measurements, never to be changed."""
    return _write(tmp_path_factory.mktemp("evidence") / "case", certified, pdf=True)


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory, certified: Outcome) -> Path:
    """The same without PDF and with the cheap page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "render", lambda record: f"<p>{digest_json(record)}</p>")
        return _write(tmp_path_factory.mktemp("evidence") / "case", certified, pdf=False)


@pytest.fixture
def copied(quick: Path, tmp_path: Path, cheap_page: None) -> Path:
    """A copy of the quick folder, to be tampered with."""
    return Path(shutil.copytree(quick, tmp_path / "case"))


@pytest.fixture
def whole(written: Path, tmp_path: Path) -> Path:
    """A copy of the whole folder, to be tampered with."""
    return Path(shutil.copytree(written, tmp_path / "case"))


def _write(out: Path, certified: Outcome, *, pdf: bool) -> Path:
    out.mkdir()
    decision = {"decision": "grant", "reason": "nothing unusual", "by": "officer"}
    filed = {name: value for name, value in certified.request.items() if name != "matched"}
    with Ledger(out / "ledger.sqlite", create=True) as ledger:
        book = RequestBook(ledger)
        promise = {"budget": asdict(certified.before.budget), "method": {}, "content": "0" * 64}
        ledger.append(PUBLISHED, "model", promise)
        book.file_request({"id": "req-other", "targets": [{"kind": "user"}]})
        book.file_request(filed)
        book.decide(filed["id"], {**decision, "matched": certified.request["matched"]})
        digest, spent = certified.releases[0].artifact.digest, certified.after.spent[-1]
        book.release(filed["id"], {"releases": [release_item("model", spent, afresh=False, digest=digest)]})
        record = worlds.record_of(certified, ledger=ledger.excerpt([filed["id"], "model"]))
        private = {"toy head": worlds.evidence(certified).private}
        folders.write_evidence(
            out, record, {"toy head": certified}, "method: r2d\n", private=private, signing_key=worlds.KEY, pdf=pdf
        )
        book.fulfil(filed["id"], {"evidence": digest_file(out / "evidence.json")})
    return out
