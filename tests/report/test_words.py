from __future__ import annotations

import copy
import math
import re

import pytest

from expunge.core.certificate import UNCHANGED, Verdict
from expunge.metrics.outcomes import Word
from expunge.report import guarantee, html, words
from expunge.report.answer import gradients_cell
from expunge.report.differences import differences
from expunge.report.measurement_names import keyed
from expunge.report.sheet import sheet
from expunge.report.shown import shown
from expunge.report.vocabulary import label

from . import worlds


def said(record: dict) -> str:
    return " ".join(p.text for section in words.half_page(record) for p in section.paragraphs)


@pytest.mark.parametrize("verdict", worlds.VERDICTS)
def test_no_sentence_claims_more_than_the_verdict(record, verdict):
    text = said(worlds.with_verdict(record, verdict))
    uses = re.findall(r"[Cc]ertified( under declared constants)?", text)
    if verdict == Verdict.CERTIFIED:
        assert uses and "Nothing is proven" not in text
    elif verdict == Verdict.UNDER_DECLARED:
        assert uses and all(uses), "certified only ever together with its condition"
    else:
        assert not uses and "Nothing is proven" in text
        assert "guesses right" not in text, "a bound that does not hold must not be explained as if it did"


@pytest.mark.parametrize("verdict", worlds.VERDICTS)
def test_the_five_questions_are_answered_for_every_verdict(record, verdict):
    sections = words.half_page(worlds.with_verdict(record, verdict))
    assert [section.heading for section in sections] == [
        "What was asked", "What was done", "What is proven", "What is measured", "What is not known",
    ]  # fmt: skip
    assert all(section.paragraphs and all(p.text for p in section.paragraphs) for section in sections)
    assert sum(len(p.text.split()) for section in sections for p in section.paragraphs) < 400


def test_epsilon_and_delta_are_explained(record):
    certificate = {**record["runs"][0]["certificate"], "epsilon": 1.0, "delta": 1e-5}
    text = " ".join(guarantee.told_apart(certificate))
    assert "2.72 times" in text and "1 in 100,000" in text and "73.2\N{NO-BREAK SPACE}%" in text
    assert "weak" not in text
    assert "weak bound" in " ".join(guarantee.told_apart({**certificate, "epsilon": 9.0}))
    assert "without limit" in " ".join(guarantee.told_apart({**certificate, "epsilon": 5e11}))


def test_best_guess_is_the_bound_that_epsilon_and_delta_imply():
    assert guarantee.best_guess(0.0, 0.0) == 0.5
    assert guarantee.best_guess(1.0, 0.0) == pytest.approx(math.e / (1 + math.e))
    assert guarantee.best_guess(0.0, 0.2) == pytest.approx(0.6)
    assert guarantee.best_guess(5e11, 0.5) == 1.0


def test_bounds_do_not_shrink_in_print():
    assert guarantee.at_most(0.7311) == "73.2\N{NO-BREAK SPACE}%"
    assert guarantee.at_most(0.99999) == "100\N{NO-BREAK SPACE}%"


def test_earlier_releases_are_counted(record):
    certificate = copy.deepcopy(record["runs"][0]["certificate"])
    certificate["parameters"].update(releases_before=2, mu_before=None)
    assert "all 3 releases" in " ".join(guarantee.told_apart(certificate))
    del certificate["parameters"]["releases_before"]
    certificate["parameters"]["spent"] = [0.1, None, 0.2]  # as the first records list them
    assert "all 4 releases" in " ".join(guarantee.told_apart(certificate))


def test_retraining_is_exact(record):
    certificate = {**record["runs"][0]["certificate"], "epsilon": 0.0, "mu": 0.0, "composed_mu": 0.0, "delta": 0.5}
    text = " ".join(guarantee.told_apart(certificate))
    assert "reference procedure itself" in text and "0.5" not in text


def test_declared_constants_are_named_as_the_condition(record):
    text = said(worlds.with_verdict(record, Verdict.UNDER_DECLARED))
    assert "only if the following is true" in text and "L-smooth" in text
    assert "Whether what was declared is true" in text
    claimed = said(worlds.with_verdict(record, Verdict.AS_CLAIMED))
    assert "Whether these assumptions hold: every row's loss is L-smooth" in claimed


def test_a_violated_assumption_is_named(record):
    assert "Violated: every row's loss is L-smooth" in said(worlds.with_verdict(record, Verdict.VOID))


def test_without_reference_nothing_is_decided(certified):
    record = worlds.record_of(certified, reference=None)
    text = said(record)
    assert "undecidable" in text and "retrained 9" not in text and "tells it from a retrained" not in text


def test_a_refuted_certificate_contradicts(record):
    record = copy.deepcopy(record)
    evidence = record["runs"][0]["evidence"]
    evidence["verdict"] = "refuted"
    evidence["checks"][0]["passed"] = False
    assert "Refuted by replay" in said(record) and "contradicts what is said to be proven" in said(record)
    assert "contradicts" not in said(worlds.with_verdict(record, Verdict.HEURISTIC))


def test_lost_usefulness_is_said(record):
    record = copy.deepcopy(record)
    evidence = record["runs"][0]["evidence"]
    item = next(m for m in evidence["measurements"] if m["name"] == "accuracy/test")
    item |= {"value": 0.3, "interval": [0.25, 0.35], "agrees": False}
    evidence["verdict"] = "differs from retraining"
    assert "less useful" in said(record) and "differs from retraining in 1 of 4" in said(record)


def test_measurements_without_power_are_called_so(record):
    blind = copy.deepcopy(record)
    assert words.sees_the_original(record["runs"][0]["evidence"]) is True
    for item in blind["runs"][0]["evidence"]["measurements"]:
        item["original"] = item["ideal"]
    assert words.sees_the_original(blind["runs"][0]["evidence"]) is False
    assert "too little power" in said(blind) and "too little power" not in said(record)


def test_a_control_forgets_nothing_and_says_so(record):
    text = said(worlds.with_verdict(record, UNCHANGED))
    assert "nothing was forgotten" in text and "made a new model" not in text


def test_a_network_is_worth_its_weakest_view(record):
    run = copy.deepcopy(record["runs"][0])
    worse = worlds.with_verdict(record, Verdict.VOID)["runs"][0]["certificate"]
    run["other_views"] = [{"view": "peer 1", "model": run["model"], "certificate": worse}]
    run["verdict"] = "void"
    assert guarantee.weakest_certificate(run) is worse
    assert "the theorem does not apply" in " ".join(words.proven(run))
    run["other_views"][0]["certificate"] = None
    assert guarantee.weakest_certificate(run) is None


def test_runs_are_told_apart_by_name(record):
    record = copy.deepcopy(record)
    record["runs"].append({**record["runs"][0], "name": "second"})
    leads = [p.lead for section in words.half_page(record) for p in section.paragraphs]
    assert "Toy head" in leads and "Second" in leads


def test_authored_material_is_not_called_training_rows(record):
    record = copy.deepcopy(record)
    record["data"] |= {"member": False, "rows": None, "retained": None, "digest": None}
    assert "names no training rows" in said(record)


def test_an_unknown_verdict_proves_nothing(record):
    record = worlds.with_verdict(record, Verdict.VOID)
    record["runs"][0]["verdict"] = "super-certain"
    assert "Nothing is proven" in " ".join(words.proven(record["runs"][0]))


def test_what_a_pretrained_base_may_know_is_said_under_what_is_not_known(record):
    """A retrained model begins with the same weights: where these know the person, it would know the person too."""
    (run,) = record["runs"]
    run["facts"]["start"] = {"value": "independent", "origin": "enforced", "note": ""}
    assert "pretrained weights" not in said(record)
    run["facts"]["start"] = {"value": "pretrained", "origin": "declared", "note": ""}
    unknown = next(s for s in words.half_page(record) if s.heading == "What is not known")
    assert "Whether the pretrained weights that training began with know" in " ".join(
        p.text for p in unknown.paragraphs
    )


def test_settings_that_did_not_act_are_not_listed(record):
    (run,) = record["runs"]
    run["method"]["settings"] = {
        "epochs": 10, "su": 0.0, "lora": None, "dual": False, "decay_at": [], "guard": True, "extra": {}
    }  # fmt: skip
    text = said(record)
    assert "epochs 10" in text and "guard" in text and "su 0" in text, "a weight of 0 is a choice"
    assert not any(word in text for word in ("lora", "dual", "decay_at", "extra"))


def test_measurements_have_names_for_people():
    named = lambda name: label(keyed({"name": name}))  # noqa: E731
    assert named("accuracy/forget") == "Accuracy on forgotten rows"
    assert named("membership/lira@peer 3") == "Membership attack by likelihood ratio (peer 3)"
    assert named("distance to retrained") == "Distance to retrained"


def retrained(record: dict, same: bool) -> dict:
    """The record of a retraining, whose values are those of the reference or are not."""
    run = record["runs"][0]
    items = [{**item, "value": item["ideal"] if same else item["value"]} for item in run["evidence"]["measurements"]]
    evidence = {**run["evidence"], "measurements": items, "verdict": "not told from retraining"}
    return {**record, "runs": [{**run, "method": {**run["method"], "name": "retrain"}, "evidence": evidence}]}


def test_a_release_that_is_the_reference_itself_is_not_said_to_have_stood_a_comparison(record):
    assert "could not have come out otherwise" in said(retrained(record, True))
    for text in (said(retrained(record, False)), said(record)):
        assert "could not have come out otherwise" not in text
    assert "No measurement tells it" not in said(retrained(record, True))


@pytest.mark.parametrize("word", list(Word))
def test_an_outcome_that_speaks_against_a_result_is_not_contradicted_by_single_values(record, word):
    run = retrained(record, False)["runs"][0]
    run = {**run, "method": {**run["method"], "name": "npo"}, "outcome": {"word": word, "reason": None}}
    against = word in (Word.UNDER_FORGETS, Word.OVER_FORGETS, Word.UTILITY_COLLAPSE)
    text, page = " ".join(words.measured(run)), html.render({**record, "runs": [run]})
    assert ("No measurement tells it from a retrained model" in text) != against
    assert ("weaker than the outcome" in text) == against
    assert ("Not told from retraining" in page) != against


def test_what_is_private_is_not_said_to_agree_with_a_retrained_model(record):
    """The shown part of a record cannot say more than it shows: what is withheld may differ, and the review says whether."""
    run = retrained(record, False)["runs"][0]
    run = {**run, "method": {**run["method"], "name": "npo"}, "outcome": {"word": Word.FORGETS, "reason": None}}

    def with_private(count: int | None) -> tuple[str, str]:
        items = run["evidence"]["measurements"]
        private = {"value": None, "ideal": None, "agrees": None, "withheld": True, "direction": "match"}
        items = [{**item, **private} if count is None or i < count else item for i, item in enumerate(items)]
        own = {**run, "evidence": {**run["evidence"], "measurements": items}}
        return " ".join(words.measured(own)), html.render({**record, "runs": [own]})

    text, page = with_private(None)
    assert "Whether it differs from a retrained model is private" in text and "No measurement" not in text
    assert "Not told from retraining" not in page
    text, page = with_private(1)
    assert "No measurement that is shown here tells it" in text and "other values are private" in page


def test_retraining_is_not_compared_with_the_cost_of_retraining(record):
    run = record["runs"][0]
    slow = {**run, "cost": {**run["cost"], "seconds": 9.0}}  # retraining took two
    assert "Retraining would have been faster" in " ".join(words.done(slow))
    for own, retraining in ((2.9, 2.0), (0.9, 0.1), (1.4, 0.5)):  # a factor below 1.5, or less than a second
        evidence = {**run["evidence"], "cost": {"seconds": {"retrain": retraining}}}
        near = {**run, "cost": {"seconds": own}, "evidence": evidence}
        assert "faster" not in " ".join(words.done(near))
    text = " ".join(words.done({**slow, "method": {**run["method"], "name": "retrain"}}))
    assert "faster" not in text and "once took" not in text


def test_gradients_that_nobody_counted_are_not_called_none_at_all(record):
    run = record["runs"][0]
    cost = {**run["evidence"]["cost"], "gradient_evaluations": {"unlearn": 0, "retrain": 0}}
    assert gradients_cell({**run, "evidence": {**run["evidence"], "cost": cost}}) == ("none recorded", "")
    assert gradients_cell(run)[0] not in ("0", "none recorded")


@pytest.mark.parametrize("before", [True, False])
def test_the_legend_shows_a_ring_only_where_one_is_drawn(record, before):
    run = record["runs"][0]
    items = [{**item, **({} if before else {"original": None})} for item in run["evidence"]["measurements"]]
    figure = differences({**run, "evidence": {**run["evidence"], "measurements": items}})
    assert figure is not None and (">before<" in figure.svg) == before


def test_facts_have_names_for_who_reads_a_report(record):
    named = [row[0] for row in sheet(record)["runs"][0]["facts"]]
    assert "state that training changed besides the weights" in named and "buffers moved" not in named


def test_settings_of_a_group_do_not_repeat_its_name(record):
    method = {
        "name": "npo",
        "settings": {"lora": {"lora_alpha": 32, "r": 16}, "lr": 1e-4, "dual": False, "retain_lr": None},
    }
    said = " ".join(words.done({**record["runs"][0], "method": method}))
    assert "npo (lora (alpha 32, r 16), lr 10⁻⁴)" in said
    page = " ".join(html.render({**record, "runs": [{**record["runs"][0], "method": method}]}).split())
    assert "alpha 32, r 16" in page and "lora lora" not in page


def test_what_a_page_withholds_is_named_as_what_it_is(record):
    """Whether values agree is withheld with them, and retained rows are not forgotten ones."""
    public = shown(record)
    assert all(item["agrees"] is None for item in public["runs"][0]["evidence"]["measurements"] if item.get("withheld"))
    assert "nor whether they agree with retraining" in " ".join(words.withheld(public).split())
    base = {"withheld": True, "metric": "accuracy"}
    kinds = words.hidden_kinds
    assert kinds([{**base, "set": "retain"}]) == "retained rows"
    assert kinds([{**base, "set": "forget"}, {**base, "set": "retain at Basel"}]) == "forgotten rows and retained rows"
    assert kinds([{**base, "metric": "distance", "set": None}]) == "distances of weights"
    assert kinds([{**base, "metric": "membership_loss", "set": None}]) == "forgotten rows"
