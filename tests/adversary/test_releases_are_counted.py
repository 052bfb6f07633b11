"""One state, many releases: each is counted beside the model, or the word certified is not to be had."""

import multiprocessing
import shutil
from dataclasses import asdict

import pytest

import expunge
from cases import CASES, beside_ledger, samples
from expunge import Budget, Request, Target
from expunge.core.certificate import Status, Verdict
from expunge.core.digest import digest_json
from expunge.core.errors import InputError, RefusedError
from expunge.core.trained import InMemoryBook
from expunge.methods.noisy_fine_tune import NoisyFineTune
from expunge.model_folder import ModelFolder
from expunge.privacy.composition import EarlierReleases
from expunge.report import html
from expunge.report.verify import verify_folder

from . import folders
from .worlds import forget, head, measured, not_holding, published, r2d, rows

BUDGET = Budget(1.0, 1e-5, 1)


def test_a_model_in_memory_is_somebodys_word_and_its_second_release_is_refused():
    trained = expunge.train(head(), rows(), expunge.GradientDescent(steps=100, lr=1.5, l2=1e-2))
    trained = expunge.publish(trained, BUDGET, method=r2d())
    outcome = forget(trained, r2d())
    assert outcome.verdict == Verdict.UNDER_DECLARED
    assert not_holding(outcome).keys() == {"release_ledger", "noise_fixed_before", "selection"}
    for _ in range(3):
        with pytest.raises(RefusedError, match="All releases together would come to epsilon"):
            forget(trained, r2d())


def test_the_same_request_is_served_once_from_a_model_with_its_ledger():
    trained = published(head(), rows(), budget=Budget(1.0, 1e-5, 1, releases=9))
    assert forget(trained, r2d()).verdict == Verdict.CERTIFIED
    before = len(trained.book.spent())
    with pytest.raises(RefusedError, match="released already"):
        forget(trained, r2d())
    assert len(trained.book.spent()) == before == 1


def test_the_model_of_before_is_not_served_again_under_another_name():
    trained = published(head(), rows(), budget=Budget(4.0, 1e-5, 4, releases=4))
    plans = [
        expunge.plan(trained, Request(name, Target("samples", {"ids": [row]})), r2d())
        for name, row in zip("abc", (3, 4, 5), strict=True)
    ]  # planned before any of them ran
    first = plans[0].run()
    assert first.verdict == Verdict.CERTIFIED
    for plan in plans[1:]:
        with pytest.raises(RefusedError, match="released from this model since"):
            plan.run()
    with pytest.raises(RefusedError, match="released from this model since"):
        expunge.plan(trained, Request("d", Target("samples", {"ids": [6]})), r2d())
    second = forget(first.after, r2d(), 4)
    assert second.verdict == Verdict.CERTIFIED and second.certificate.parameters["releases_before"] == 1
    assert second.after.removed["row"].tolist() == [3, 4] and len(trained.book.spent()) == 2


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """The evidence of a second request on a published model, and the ledger."""
    place = tmp_path_factory.mktemp("twice")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "render", lambda record: f"<p>{digest_json(record)}</p>")
        first = folders.serve(place)()
        assert verify_folder(first, ledger=place / "model" / "ledger.sqlite").consistent
        first.rename(place / "first")
        (place / "evidence.private").rename(place / "first.private")
        yield folders.serve(place, who=("0", "7"))(), place / "model" / "ledger.sqlite"


def lists(record):
    """As the first records had it: every earlier release by itself."""
    certificate = folders.certificate(record)
    mu = certificate["parameters"].pop("mu_before")
    certificate["parameters"]["spent"] = [mu] * certificate["parameters"].pop("releases_before")
    counted = certificate["given"].pop("earlier")
    listed = {"removed": counted["removed"], "mu": mu, "theorem": counted["theorems"][0]}
    certificate["given"]["spent"] = [listed] * counted["releases"]


def test_a_record_that_lists_earlier_releases_still_verifies(twice, tmp_path):
    folder, ledger = twice
    assert (known := folders.certificate(folders.record_of(folder))["given"]["earlier"])["releases"] == 1
    assert known["removed"] == 5 and known["theorems"] == ["rewind-to-delete"]
    old = folders.rewrite(folders.copy(folder, tmp_path), lists)
    # the ledger names the record that was rewritten here, and nothing else is wrong with it
    wrong = {check.name: check.problem for check in verify_folder(old, ledger=ledger).checks if check.problem}
    assert wrong.keys() == {"ledger's excerpt", "ledger"} and "counts" not in str(wrong), wrong


def test_the_ledger_finds_a_certificate_that_counts_no_release_before_its_own(twice, tmp_path):
    def alone(record):
        certificate = folders.certificate(record)
        certificate["given"]["earlier"] = asdict(EarlierReleases())
        certificate["parameters"].update(releases_before=0, mu_before=0.0)
        record["runs"][0]["removed"]["before"] = 0

    folder, ledger = twice
    forged = folders.rewrite(folders.copy(folder, tmp_path), alone)
    wrong = {check.name: check.problem for check in verify_folder(forged, ledger=ledger).checks if check.problem}
    assert "counts 0 release(s) before it, mu 0; the ledger has 1, mu" in wrong["ledger"]


def test_a_promise_that_was_changed_after_publication_is_not_the_published_one():
    from dataclasses import replace

    trained = published(head(), rows())
    louder = replace(trained, budget=replace(trained.budget, epsilon=500.0, sigma=trained.budget.sigma / 100))
    assert not_holding(forget(louder, r2d())).keys() >= {"noise_fixed_before", "release_ledger"}


def test_constants_proved_for_another_model_are_not_proved_for_this_one():
    from dataclasses import replace

    from expunge import Classification
    from expunge.tasks.networks import SoftmaxHead

    trained = published(head(), rows())
    other = replace(trained, task=Classification(lambda: SoftmaxHead(2, 2, radius=40.0), dtype=trained.task.dtype))
    assert not_holding(forget(other, r2d())).keys() >= {"smoothness", "gradient_bound"}


def test_facts_that_were_edited_in_a_stored_model_are_somebodys_word(tmp_path):
    import json

    from expunge.training.store import load_trained, save_trained

    trained = expunge.train(head(), rows(), expunge.GradientDescent(steps=20, lr=1.5, l2=1e-2))
    save_trained(tmp_path / "model", trained)
    assert load_trained(tmp_path / "model", head(), rows()).facts["start"].origin == "enforced"
    path = tmp_path / "model" / "trained.json"
    record = json.loads(path.read_text())
    record["facts"]["momentum"] = [0.0, "enforced", "typed by hand"]
    path.write_text(json.dumps(record))
    assert {fact.origin.value for fact in load_trained(tmp_path / "model", head(), rows()).facts.values()} == {
        "declared"
    }


def test_a_book_of_somebodys_own_is_not_the_ledger_beside_the_model():
    class Generous(InMemoryBook):
        beside_model = True

        def published_before(self, request):
            return True

    from dataclasses import replace

    trained = replace(published(head(), rows()), book=Generous())
    assert not_holding(forget(trained, r2d()))["release_ledger"] is Status.UNCHECKED


def test_noise_that_was_fixed_after_the_request_was_filed_is_not_fixed_first(tmp_path):
    from expunge.core.keys import subject_key
    from expunge.ledger import Ledger
    from expunge.requests_book import RequestBook

    trained = expunge.train(head(), rows(), expunge.GradientDescent(steps=100, lr=1.5, l2=1e-2))
    trained = expunge.publish(trained, BUDGET, method=r2d())
    folder = ModelFolder(tmp_path / "model")
    (tmp_path / "model").mkdir(mode=0o700)
    with Ledger(folder.book.path, create=True) as ledger:
        RequestBook(ledger).file_request(samples(3).record(subject_key()))
    outcome = forget(folder.publish(trained, {}), r2d())
    assert outcome.verdict == Verdict.UNDER_DECLARED
    assert not_holding(outcome).keys() == {"noise_fixed_before", "selection"}


def test_a_void_result_is_not_counted_and_one_that_leaves_all_the_same_spends_everything():
    trained = published(head(), rows(), budget=Budget(1.0, 1e-5, 4))
    after = expunge.methods.Retrain()
    void = forget(trained, r2d(), noise=expunge.privacy.noise.SeededNoise(0))
    assert void.verdict == Verdict.VOID and void.after.spent[-1].mu == float("inf")
    assert not trained.book.spent()  # it was held back
    with pytest.raises(RefusedError, match="epsilon inf"):
        expunge.plan(void.after, samples(4), r2d())
    assert expunge.plan(void.after, samples(4), after).run().certificate.epsilon == 0


@pytest.mark.parametrize("first", ["noisy_fine_tune", "newton", "r2d"])
def test_descent_to_delete_serves_only_after_itself(first):
    method = expunge.methods.registry.make(first, {"steps": 5} if first == "noisy_fine_tune" else {})
    if first == "r2d":
        method = r2d()
    trained = beside_ledger(CASES["head for newton"].publish())
    after = forget(trained, method).after
    with pytest.raises(RefusedError, match="induction does not cover"):
        forget(after, expunge.methods.registry.make("descent_to_delete"), 4)


def test_fresh_noise_is_not_missed_where_there_were_no_un_noised_weights_before():
    """After noisy fine-tuning the model's weights are all there is: nothing to compare the noise of a release with."""
    trained = beside_ledger(CASES["head for newton"].publish())
    first = forget(trained, NoisyFineTune(recovery_epochs=1, steps=5))
    second = measured(forget(first.after, NoisyFineTune(recovery_epochs=1, steps=5), 4))
    assert all(check.passed for check in second.checks) and second.outcome.verdict == Verdict.CERTIFIED
    other = forget(beside_ledger(CASES["head for newton"].publish()), NoisyFineTune(recovery_epochs=1, steps=5)).after
    newton = measured(forget(other, expunge.methods.registry.make("newton"), 5))
    assert all(check.passed for check in newton.checks)


def _serve(folder, name, results):
    try:
        trained = ModelFolder(folder).load(head(), rows())
        outcome = expunge.plan(trained, Request(name, Target("samples", {"ids": [3]})), r2d()).run()
        results.put(outcome.certificate.parameters["releases_before"])
    except (InputError, RefusedError) as error:
        results.put(str(error))


def test_a_folder_continues_with_the_model_that_a_request_left(tmp_path):
    trained = published(head(), rows(), budget=Budget(4.0, 1e-5, 4))
    folder = ModelFolder(trained.book.path.parent)
    outcome = forget(trained, r2d())
    with pytest.raises(RefusedError, match="not finished"):
        folder.load(head(), rows())
    content = folder.keep(outcome.after, outcome.request["id"])
    from expunge.ledger import Ledger
    from expunge.requests_book import RequestBook

    with Ledger(folder.book.path) as ledger:
        RequestBook(ledger).fulfil(outcome.request["id"], {"models": {folder.book.model: content}})
    folder.purge()
    now = folder.load(head(), rows())
    assert now.artifact.digest == outcome.after.artifact.digest and now.spent == outcome.after.spent
    assert not list(folder.path.glob("*.safetensors")), "un-noised weights of the model before are left"
    shutil.rmtree(folder.path / f"after-{outcome.request['id']}")
    with pytest.raises(InputError, match="no stored model"):
        folder.load(head(), rows())


@pytest.mark.slow
def test_processes_that_serve_one_model_at_once_count_each_other():
    trained = published(head(), rows(), budget=Budget(1.0, 1e-5, 1, releases=2))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_serve, args=(trained.book.path.parent, name, results)) for name in "abcd"]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    released = len(trained.book.spent())
    assert released == 1 and [one for one in found if isinstance(one, int)] == [
        0
    ]  # the others were told to go on with it


def test_a_void_result_that_is_shown_all_the_same_has_spent_everything(tmp_path):
    trained = published(head(), rows(), budget=Budget(1.0, 1e-5, 4))
    void = measured(forget(trained, r2d(), noise=expunge.privacy.noise.SeededNoise(0)))
    with pytest.raises(expunge.core.errors.HeldBackError, match="says why"):
        expunge.write_report(void, tmp_path / "evidence", pdf=False)
    assert not trained.book.spent() and not (tmp_path / "evidence").exists()
    expunge.write_report(void, tmp_path / "evidence", pdf=False, accepted={"by": "me", "reason": "it is public"})
    assert [item.mu for item in trained.book.spent()] == [float("inf")]
