from __future__ import annotations

import dataclasses

import pytest

from expunge.core.errors import InputError
from expunge.core.measurement import Direction
from expunge.metrics.catalogue import CATALOGUE, METRICS, metric
from expunge.modalities.classification.gaps import IN_GAP, IN_GAP_SVC

EXPECTED = (
    "accuracy loss forbidden_answers UA FA RA TA mia_svc_nonmember mia_entropy_member gap gap_svc gap_per_seed tow tow_mia "
    "klom challenge ulira lira zrf zrf_released distance distance_to_retrained distance_to_retrained_worst_peer "
    "membership_loss_spread membership_loss_worst_peer accuracy_worst_peer signal_to_noise seconds tuning_trials "
    "optimizer_bytes forget forget_worded clean trigger mixed then real probability choice_probability rouge_l_recall "
    "right_word exact_answer extraction_strength exact_memorization truth_ratio_geometric truth_ratio_arithmetic "
    "truth_ratio_knowledge_left model_utility forget_quality forget_quality_log10 forget_quality_ks replay_nll "
    "replay_probability replay_accuracy replay_auc replay_kept replay_ra legacy_ra legacy_hs link_auc deleted_auc "
    "deleted_probability "
    "absent_probability link_stealing frechet frechet_real sample_recall judge recognition_unseen recognition_seen "
    "recognition_style others_style yes_no facts others yes_others no_others facts_others degeneration recognition affirmed "
    "rule_judge fluency diversity "
    "unique_words specificity min_k_alike min_k_rouge_l aligned_forgotten aligned_retained relearning_steps name_probability "
    "c_dis kl_to_retrained membership_loss "
    "membership_confidence membership_lira membership_zlib membership_min_k membership_min_k_plus_plus membership_gradnorm "
    "privleak"
)


def test_every_metric_of_the_benchmark_has_one_complete_record():
    assert [item.name for item in CATALOGUE] == EXPECTED.split() == list(METRICS)
    for item in CATALOGUE:
        assert (
            item.title and item.unit and item.null and item.label and item.headline.source and item.headline.models >= 1
        )
        assert isinstance(item.direction, Direction) and isinstance(item.ideal, str | float | None)
        assert all(item.name in METRICS[other].excludes for other in item.excludes)
        assert (item.ideal == "retrained") <= ("reference" in item.needs)
    assert len({item.title for item in CATALOGUE}) == len(CATALOGUE)


def test_columns_of_the_benchmark_are_the_metric_and_set_that_the_other_commands_name():
    pairs = [item.of for item in CATALOGUE if item.of]
    assert len(set(pairs)) == len(pairs) and {metric for metric, _ in pairs} <= set(METRICS)
    assert metric("FA").of == ("accuracy", "forget") and metric("clean").of == ("rouge_l_recall", "retain")


def test_labels_and_recorded_names_tell_metrics_apart():
    assert len({item.label for item in CATALOGUE}) == len(CATALOGUE)
    recorded = [item.recorded or item.name for item in CATALOGUE]
    assert len(set(recorded)) == len(recorded)


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        METRICS["UA"].unit = "1"  # type: ignore[misc]
    with pytest.raises(TypeError):
        METRICS["MIA"] = METRICS["UA"]  # type: ignore[index]


def test_headlines_need_models():
    assert (metric("klom").headline.models, metric("challenge").headline.models) == (50, 32)


def test_conventions_are_not_mixed():
    """What one average holds never counts a thing twice, nor two conventions that count opposite things."""
    for averaged in (IN_GAP, IN_GAP_SVC):
        assert not any(other in METRICS[name].excludes for name in averaged for other in averaged)
    assert "mia_entropy_member" in METRICS["mia_svc_nonmember"].excludes and "UA" in METRICS["FA"].excludes
    with pytest.raises(InputError, match="name the one you mean"):
        metric("MIA")
