"""UCI Heart Disease: counts of the published files, one row by hand, and files that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from expunge.core.errors import InputError
from expunge.data.heart import FEATURES, HOSPITALS, heart_disease

ROW = "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,0"


def written(folder, row=ROW):
    for name in HOSPITALS:
        (folder / f"processed.{name}.data").write_text(f"{row}\n" * 5)
    return folder


def test_a_row_is_what_its_ranges_and_categories_make_of_it(tmp_path):
    train, test = heart_disease(written(tmp_path))
    assert len(train) == 16 and len(test) == 4 and train.x.shape[1] == FEATURES == 34
    numbers = [(63 - 20) / 60, 1, 0, 1, 1, 0, 0, 0, (145 - 80) / 120, 1, (233 - 80) / 530, 1, 0, 1, 0, 0, 1,
               (150 - 60) / 150, 1, 1, 0, (2.3 + 3) / 10, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1]  # fmt: skip
    assert torch.allclose(train.x[0], torch.tensor(numbers) / math.sqrt(19), atol=1e-6)
    assert train.prepared().value == "fixed" and train.y.tolist() == [0] * 16
    missing, _ = heart_disease(written(tmp_path, ROW.replace("145.0,233.0", "?,0").replace("6.0,0", "?,2")))
    assert missing.x[0].count_nonzero() == train.x[0].count_nonzero() - 5 and missing.y[0] == 1


def test_what_is_no_such_row_is_refused(tmp_path):
    for row, message in ((ROW + ",1", "expected 14 values"), (ROW.replace("63.0", "630"), "age from 20 to 80"),
                         (ROW.replace("6.0,0", "5.0,0"), "thal among 3, 6, 7"),
                         (ROW.replace("63.0", "x"), "line 1")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            heart_disease(written(tmp_path, row))
    with pytest.raises(InputError, match="heart_disease"):
        heart_disease(tmp_path / "nowhere")


def test_the_published_files_have_four_hospitals(real_data):
    train, test = heart_disease(real_data("heart_disease"))
    counts = [int((rows.columns["hospital"] == name).sum()) for name in HOSPITALS for rows in (train, test)]
    assert counts == [243, 60, 236, 58, 99, 24, 160, 40]
    assert float(torch.cat([train.x, test.x]).norm(dim=1).max()) <= 1
    assert len(np.unique([*train.columns["patient"], *test.columns["patient"]])) == 920
