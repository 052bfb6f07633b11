from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch.nn.functional import kl_div

from expunge.core.errors import InputError
from expunge.metrics.intervals import mean_interval
from expunge.metrics.unlearning import (
    average_gap,
    average_std,
    gap_per_seed,
    tow,
    tow_mia,
    zrf,
)

NAMES = ("FA", "RA", "TA", "mia_entropy_member")

# DualOptim's published tables (vision spec 1.8): FA RA TA MIA as mean±std, then gap, std, and the specification's own G1.
TABLES = {
    "CIFAR-10, ResNet-18, forget 10%": """
        RT 94.61±0.46 100.00±0.00 94.25±0.18 76.26±0.54 0 0.30 0.24
        FT 99.16±0.10 99.84±0.06 94.10±0.09 88.77±0.38 4.34 0.16 4.34
        GA 98.76±0.39 99.10±0.90 93.89±0.41 92.58±0.55 5.43 0.44 5.49
        RL 97.19±0.21 99.67±0.08 94.03±0.27 68.19±0.95 2.80 0.38 2.82
        SCRUB 92.88±0.25 99.62±0.10 93.54±0.22 82.78±0.86 2.33 0.36 2.34
        SCRUB+DO 94.90±0.42 99.52±0.09 93.50±0.20 78.26±0.79 0.88 0.38 0.91
        SalUn 96.99±0.31 99.40±0.28 93.84±0.36 65.76±1.05 3.47 0.50 3.48
        SalUn+DO 95.47±0.22 99.06±0.94 92.47±0.29 76.14±0.70 0.93 0.35 1.08
        SFRon 94.67±3.03 99.83±0.13 93.98±0.56 77.80±5.61 0.51 2.33 1.94
        SFRon+DO 94.69±1.13 99.92±0.01 94.11±0.11 77.77±1.39 0.44 0.66 0.71
    """,
    "TinyImageNet, Swin-T, forget 10%": """
        RT 85.29±0.09 99.55±0.03 85.49±0.15 69.30±0.20 0 0.12 0.09
        FT 96.50±0.10 98.23±0.08 82.67±0.21 79.85±0.13 6.48 0.13 6.47
        GA 90.02±3.26 90.84±3.29 75.64±2.67 78.97±2.07 8.24 2.82 8.30
        RL 94.66±0.26 98.02±0.14 82.73±0.27 54.45±1.04 7.13 0.43 7.13
        SCRUB 97.80±0.16 98.13±0.08 82.64±0.19 79.62±0.41 6.78 0.21 6.77
        SCRUB+DO 97.20±0.20 98.30±0.10 83.17±0.19 79.10±0.63 6.32 0.28 6.32
        SalUn 97.69±0.14 98.89±0.03 84.02±0.32 61.87±0.97 5.49 0.37 5.49
        SalUn+DO 91.68±0.28 95.13±0.18 80.16±0.34 72.48±0.33 4.83 0.28 4.83
        SFRon 96.41±0.74 98.95±0.22 83.40±0.51 70.40±3.15 3.73 1.16 4.12
        SFRon+DO 92.26±1.44 98.27±0.12 83.12±0.21 69.19±2.27 2.68 1.01 3.11
    """,
    "CIFAR-10, ResNet-18, forget 50%": """
        RT 93.36±0.10 100.00±0.00 93.11±0.29 69.02±0.01 0 0.10 0.08
        FT 99.28±0.05 99.92±0.03 94.20±0.18 88.77±0.28 6.71 0.14 6.71
        GA 95.44±7.29 95.53±7.30 90.54±6.69 89.14±6.82 7.31 7.03 9.70
        RL 99.26±0.09 99.50±0.02 93.91±0.12 58.50±1.22 4.43 0.36 4.43
        SCRUB 97.07±0.28 99.57±0.10 93.21±0.17 80.62±1.14 3.96 0.42 3.97
        SCRUB+DO 97.42±0.09 99.52±0.05 93.38±0.06 77.94±0.69 3.43 0.22 3.43
        SalUn 99.05±0.09 99.88±0.02 94.10±0.15 68.30±0.72 1.88 0.24 1.91
        SalUn+DO 93.82±0.36 97.90±0.36 90.66±0.25 68.88±0.64 1.29 0.40 1.39
        SFRon 93.21±2.34 98.90±0.60 91.34±1.22 71.75±3.31 1.44 1.87 2.08
        SFRon+DO 91.38±0.81 99.52±0.20 91.07±0.31 69.66±0.34 1.29 0.41 1.29
    """,
    "CIFAR-100, ResNet-18, forget 10%": """
        RT 77.96±0.52 99.98±0.00 77.23±0.30 41.79±0.01 0 0.21 0.17
        FT 77.97±0.06 92.33±0.54 66.07±0.45 62.64±0.18 9.92 0.31 9.93
        GA 81.81±11.77 83.52±11.25 62.13±9.55 72.62±14.47 16.56 11.76 18.41
        RL 94.66±0.21 98.10±0.03 70.16±0.09 40.82±0.51 6.66 0.21 6.66
        SCRUB 77.45±0.68 99.26±0.02 73.51±0.37 70.81±0.72 8.49 0.45 8.54
        SCRUB+DO 76.72±0.65 99.38±0.01 73.87±0.19 63.06±0.56 6.62 0.35 6.62
        SalUn 95.02±0.40 98.04±0.04 70.26±0.29 41.35±0.46 6.60 0.30 6.62
        SalUn+DO 78.04±1.07 97.96±0.09 71.10±0.25 41.94±0.69 2.10 0.53 2.39
        SFRon 76.24±12.35 99.56±0.25 73.18±1.30 57.64±7.41 5.51 5.33 7.59
        SFRon+DO 74.32±4.28 99.71±0.03 73.66±0.49 54.02±1.55 4.93 1.59 5.16
    """,
    "SVHN, ResNet-18, forget 10%": """
        RT 96.05±0.14 99.82±0.01 96.53±0.10 79.47±0.01 0 0.07 0.05
        FT 99.51±0.07 100.00±0.00 95.85±0.03 80.23±0.66 1.27 0.19 1.29
        GA 96.81±4.45 97.41±4.15 92.60±4.89 88.80±5.60 4.11 4.77 5.53
        RL 94.73±0.32 99.43±0.09 94.56±0.24 74.00±1.02 2.29 0.42 2.29
        SCRUB 92.41±0.25 99.82±0.03 94.68±0.11 84.44±0.55 2.61 0.23 2.62
        SCRUB+DO 95.42±0.23 99.82±0.01 95.06±0.17 82.70±0.34 1.33 0.19 1.33
        SalUn 94.69±0.22 98.85±0.33 94.54±0.31 73.11±0.47 2.67 0.33 2.67
        SalUn+DO 99.58±0.06 100.00±0.00 95.76±0.04 79.59±0.46 1.15 0.14 1.21
        SFRon 97.29±1.98 100.00±0.00 95.41±0.36 79.25±3.30 0.69 1.41 1.45
        SFRon+DO 98.20±0.60 100.00±0.00 95.63±0.09 79.56±1.06 0.83 0.44 1.02
    """,
}
FLAGGED = {("CIFAR-10, ResNet-18, forget 10%", "GA"), ("CIFAR-10, ResNet-18, forget 10%", "SalUn+DO")}  # printed std


def rows():
    for table, text in TABLES.items():
        lines = [line.split() for line in text.strip().splitlines()]
        parsed = {name: ([tuple(map(float, cell.split("±"))) for cell in line[:4]], line[4:]) for name, *line in lines}
        for name, (cells, printed) in parsed.items():
            yield table, name, np.array(cells), np.array(printed, float), np.array(parsed["RT"][0])


def of_cells(cells, seeds=5):
    """``seeds`` values with exactly the printed mean and (ddof 0) standard deviation."""
    shape = np.array([-1.0, 1.0] if seeds == 2 else [-1.5, -0.5, 0.0, 0.5, 1.5])
    shape = (shape - shape.mean()) / shape.std()
    return {name: mean + std * shape for name, (mean, std) in zip(NAMES, cells, strict=True)}


def seeds_of(generator, count, shift=0.0):
    return {name: 80 + generator.normal(size=count) + shift for name in NAMES}


def test_check_17_gap_and_std_from_the_cells_match_the_printed_ones():
    found = list(rows())
    assert len(found) == 50
    for table, name, cells, (gap, std, _), retrained in found:
        result = average_gap(of_cells(cells), of_cells(retrained))
        assert result.value.value == pytest.approx(gap, abs=0.02), (table, name)
        assert (abs(result.std - std) <= 0.02) == ((table, name) not in FLAGGED), (table, name, result.std)


def test_the_gap_averages_before_the_absolute_value_and_keeps_the_signs():
    found = average_gap({"FA": [90, 98], "RA": [99, 99]}, {"FA": [94.0], "RA": [100.0]})
    assert found.value.value == 0.5 and found.differences == {"FA": 0.0, "RA": -1.0}
    assert found.std == average_std({"FA": [90, 98], "RA": [99, 99]}) == 2.0  # ddof 0
    assert found.value.pair is None and np.isnan(found.null)  # one retrained model has no spread
    assert gap_per_seed({"FA": [90, 98], "RA": [99, 99]}, {"FA": [94.0], "RA": [100.0]}).value.value == 2.5


def test_the_gap_interval_covers_a_real_gap_and_its_null_is_what_retraining_scores():
    generator = np.random.default_rng(1)
    covered, nulls, perfect = 0, [], []
    for _ in range(300):
        covered += average_gap(seeds_of(generator, 5, 4.0), seeds_of(generator, 5)).value.covers(4.0)
        found = average_gap(seeds_of(generator, 5), seeds_of(generator, 5))
        nulls.append(found.null)
        perfect.append(found.value.value)
    assert covered / 300 == pytest.approx(0.95, abs=0.04)
    assert np.mean(perfect) == pytest.approx(np.mean(nulls), rel=0.12)


def test_per_seed_gap_is_never_below_the_gap():
    generator = np.random.default_rng(2)
    for trial in range(300):
        scale = generator.choice([1e-9, 1.0, 20.0])
        method = {name: 50 + scale * generator.normal(size=6) for name in NAMES}
        retrained = {name: 50 + scale * generator.normal(size=6) for name in NAMES}
        gap = average_gap(method, retrained).value.value
        for paired in (False, True):
            found = gap_per_seed(method, retrained, paired=paired)
            assert found.value.value >= gap - 1e-12, (trial, paired)
            assert found.value.pair == mean_interval(found.seeds).pair
    shifted = {name: values + 1000 for name, values in retrained.items()}  # all on one side: equal
    assert gap_per_seed(shifted, retrained).value.value == pytest.approx(average_gap(shifted, retrained).value.value)


def test_a_gap_refuses_to_mix_conventions_and_to_guess():
    good = {"FA": [1.0], "RA": [1.0]}
    for method, retrained, words in [
        (good, {"FA": [1.0]}, "same metrics"),
        ({"MIA": [1.0]}, {"MIA": [1.0]}, "convention"),
        (*[{"mia_svc_nonmember": [1.0], "mia_entropy_member": [1.0]}] * 2, "one convention"),
        (*[{"UA": [1.0], "FA": [1.0]}] * 2, "one number"),
        ({"FA": [1.0, 2.0], "RA": [1.0]}, good, "as many"),
        ({"FA": [np.inf], "RA": [1.0]}, good, "finite"),
        ({}, {}, "same metrics"),
    ]:
        with pytest.raises(InputError, match=words):
            average_gap(method, retrained)
    with pytest.raises(InputError, match="paired"):
        gap_per_seed({"FA": [1.0, 2.0]}, {"FA": [1.0]}, paired=True)


def test_check_20_tug_of_war():
    assert tow((0.92, 0.99, 0.92), (0.95, 1.0, 0.94)).value == pytest.approx(0.97 * 0.99 * 0.98)
    assert tow((0.92, 0.99, 0.92), (0.95, 1.0, 0.94)).value == pytest.approx(0.941094)
    assert tow((0.5, 0.9, 0.8), (0.5, 0.9, 0.8)).value == tow_mia((0.1, 0.9, 0.8), (0.1, 0.9, 0.8)).value == 1.0
    many = tow(([0.9, 0.94], [1.0, 1.0], [0.9, 0.9]), ([0.91, 0.93], [1.0], [0.9, 0.9]))
    assert many.value == pytest.approx((0.98 + 0.98) / 2) and many.pair is not None
    with pytest.raises(InputError, match="fraction"):
        tow((92, 99, 92), (95, 100, 94))


def test_zrf_is_one_minus_the_jensen_shannon_divergence():
    generator = np.random.default_rng(3)
    p, q = generator.dirichlet(np.ones(5), 30), generator.dirichlet(np.ones(5), 30)
    for base in (2, np.e):
        expected = 1 - np.mean([jensenshannon(a, b, base) ** 2 for a, b in zip(p, q, strict=True)])
        assert zrf(p, q, base).value == pytest.approx(expected)
    assert zrf(p, p).value == pytest.approx(1.0)
    apart = np.eye(2)
    assert zrf(apart, apart[::-1]).value == pytest.approx(0.0)
    assert zrf(apart, apart[::-1], np.e).value == pytest.approx(1 - np.log(2))
    with pytest.raises(InputError, match="softmax"):
        zrf(p * 3, q)


@pytest.mark.parametrize("seed", range(4))
def test_zrf_as_released_is_the_mean_over_rows_and_classes_of_the_reverse_divergence(seed):
    """What torch's ``kl_div`` gives for (log p, middle) and (log q, middle) as the mean of all entries."""
    draw = np.random.default_rng(seed)
    p, q = draw.dirichlet(np.ones(10), 50), draw.dirichlet(np.full(10, 0.3), 50) + 1e-9
    q /= q.sum(1, keepdims=True)
    ours = zrf(p, q, released=True).value
    a, b = torch.from_numpy(p), torch.from_numpy(q)
    middle = (a + b) / 2
    theirs = 1 - float(sum(kl_div(side.log(), middle, reduction="none").mean() for side in (a, b))) / 2
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert ours > zrf(p, q).value + 0.1, "the two numbers must not be mixed"
    assert zrf(p, p, released=True).value == 1
