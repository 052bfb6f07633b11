"""Examples that lie on disk: what is read has the bits that were written, and nothing stays behind."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core import on_disk
from expunge.core.batch import Batch
from expunge.core.digest import digest_arrays
from expunge.core.errors import InputError, of_the_machine
from expunge.core.on_disk import OnDisk, blocks, joined, room, settled, whole

KINDS = (torch.float32, torch.float64, torch.bfloat16, torch.int16)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Whatever is more than 40 bytes goes to a file, and 48 bytes pass through memory at a time."""
    monkeypatch.setattr(on_disk, "IN_MEMORY", 40)
    monkeypatch.setattr(on_disk, "AT_ONCE", 48)
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def written(x: torch.Tensor) -> OnDisk:
    """``x`` as a reader writes it, one example after another."""
    made = room(tuple(x.shape), x.dtype)
    assert isinstance(made, OnDisk)
    for i in range(len(x)):
        made[i] = x[i]
    return made


def numbers(kind: torch.dtype = torch.float32, n: int = 30) -> torch.Tensor:
    """Thirty examples of shape (2, 3), each unlike the others."""
    return torch.arange(n * 6).reshape(n, 2, 3).to(kind)


def sent(x: OnDisk) -> Any:
    """``x`` as another process gets it."""
    return pickle.loads(pickle.dumps(x))  # noqa: S301  (our own)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", [slice(3, 20, 4), [], [7], [5, 6, 7, 2, 2, 29, 0], np.arange(30) % 3 == 0, [-1, -30]])
def test_a_selection_of_a_selection_is_that_of_a_tensor(small, kind, which):
    x = numbers(kind)
    filed, again = written(x), slice(None, None, 2)
    at = (
        which
        if isinstance(which, slice)
        else torch.as_tensor(np.asarray(which, dtype=None if len(which) else np.int64))
    )
    for found, meant in (
        (filed[at], x[at]),
        (filed[at][again], x[at][again]),
        (filed[at].to("cpu", torch.float64), x[at].double()),
    ):
        assert found.shape == tuple(meant.shape) and found.dtype == meant.dtype and torch.equal(found.read(), meant)
        assert digest_arrays({"x": found}) == digest_arrays({"x": meant})
        assert torch.equal(torch.cat(list(blocks(found))), torch.cat(list(blocks(meant)))) and len(found) == len(meant)
    assert torch.equal(filed[4], x[4]) and torch.equal(filed[-1], x[-1])


def test_what_is_read_is_no_longer_the_file_s(small):
    filed = written(numbers())
    filed[[1, 2]].read().zero_()
    assert torch.equal(filed.read(), numbers())


def test_several_examples_are_written_at_once_and_a_type_is_that_of_the_room(small):
    made = room((30, 2, 3), torch.float32)
    made[0:10], made[10:30] = numbers(torch.float64)[:10], numbers()[10:]
    assert torch.equal(made.read(), numbers())


def test_parts_of_a_batch_are_read_where_they_are_small_and_a_name_reads_the_whole(small):
    x, y = numbers(), torch.arange(30)
    batch = Batch({"x": written(x), "y": y})
    one, two = batch.take(slice(1)), batch.take(torch.tensor([4, 2]))
    assert isinstance(one.columns["x"], torch.Tensor) and isinstance(two.columns["x"], OnDisk)
    assert torch.equal(two["x"], x[[4, 2]]) and two["y"].tolist() == [4, 2] and torch.equal(batch["x"], x)
    assert batch.on_disk and not batch.read().on_disk and torch.equal(batch.tensors()["x"], x)
    assert settled(batch.columns["y"]) is y and whole(y) is y


def test_columns_of_one_file_are_joined_without_a_copy_and_others_are_copied(small):
    x, other = numbers(), numbers() + 500
    filed, second = written(x), written(other)
    same = joined([filed[[3, 1]], filed[5:7]])
    assert same.file is filed.file and torch.equal(same.read(), x[[3, 1, 5, 6]])
    for parts, meant in (([filed[:4], second[:4]], [x[:4], other[:4]]), ([x[:2], filed[:4]], [x[:2], x[:4]])):
        made = joined(parts)
        assert made.file is not filed.file and torch.equal(made.read(), torch.cat(meant))
    assert isinstance(joined([x, other]), torch.Tensor)


def test_the_file_is_private_has_no_name_and_ends_with_the_process(small):
    filed = written(numbers())
    assert list(small.iterdir()) == [] and small.stat().st_mode & 0o777 == 0o700
    assert os.fstat(filed.file.descriptor).st_mode & 0o777 == 0o600 and os.fstat(filed.file.descriptor).st_nlink == 0


def test_what_is_sent_to_another_process_is_a_way_to_the_file(small):
    filed = written(numbers())[[3, 8]]
    assert torch.equal(sent(filed).read(), filed.read())
    assert len(pickle.dumps(written(numbers(n=3000)))) < 40_000  # its places, and none of its 72,000 bytes


def test_a_number_that_is_another_file_s_by_now_is_not_read(small):
    """A process finds the file by the number that its maker has it under, and numbers are used again."""
    filed = written(numbers())
    path, sent_away = on_disk._OF_A_PROCESS.format(os.getpid(), filed.file.descriptor), pickle.dumps(filed)
    del filed
    other = written(numbers() + 500)
    assert on_disk._OF_A_PROCESS.format(os.getpid(), other.file.descriptor) == path, "the number is used again"
    with pytest.raises(OSError, match="let them go") as raised:
        pickle.loads(sent_away)  # noqa: S301
    assert of_the_machine(raised.value)
    del other
    with pytest.raises(OSError, match="let them go"):
        pickle.loads(sent_away)  # noqa: S301


@pytest.mark.slow
def test_a_process_of_another_program_reads_it_too(small):
    filed = written(numbers())[[3, 8]]
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).read().sum().item())"
    found = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(filed), capture_output=True, check=True)
    assert float(found.stdout) == float(filed.read().sum())


def test_without_a_way_to_the_file_another_process_gets_the_numbers(small, monkeypatch):
    monkeypatch.setattr(on_disk, "_OF_A_PROCESS", "/nowhere/{}/{}")
    assert torch.equal(sent(written(numbers())), numbers())


def test_small_examples_stay_in_memory(small):
    assert isinstance(room((10, 1), torch.float32), torch.Tensor) and not small.exists()


def test_a_full_disk_is_found_before_anything_is_written_and_is_the_machine_s(small, monkeypatch):
    def full(descriptor: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(on_disk, "_reserve", full)
    with pytest.raises(OSError, match=r"30 examples need .* GiB there, and .* GiB are free .* EXPUNGE_CACHE") as raised:
        room((30, 2, 3), torch.float32)
    assert of_the_machine(raised.value) and raised.value.filename == str(small) and list(small.iterdir()) == []


def test_more_than_the_disk_has_is_refused_by_the_system_itself(small):
    with pytest.raises(OSError, match="EXPUNGE_CACHE"):
        room((2**50, 2**6), torch.float32)


def test_what_does_not_fit_into_memory_is_not_read_whole(small, monkeypatch):
    filed = written(numbers())
    monkeypatch.setattr(os, "sysconf", lambda name: 20)  # 400 bytes of memory
    assert torch.equal(filed[:4].read(), numbers()[:4])
    with pytest.raises(InputError, match=r"Expected 30 examples at once.*read examples in batches"):
        filed.read()


@pytest.mark.parametrize("which", [..., (0, 1), np.zeros((2, 2), dtype=np.int64), [0.5], "x"])
def test_nothing_but_examples_can_be_selected(small, which):
    with pytest.raises(InputError, match="Expected rows of examples that lie on disk"):
        written(numbers())[which]
    with pytest.raises(InputError, match="axis 0"):
        written(numbers()).index_select(1, torch.tensor([0]))


def test_code_that_takes_examples_for_a_tensor_hears_how_to_have_one(small):
    with pytest.raises(AttributeError, match=r"no 'mean'.*rows.in_memory\(\)"):
        _ = written(numbers()).mean


def test_a_file_that_ended_early_is_the_machine_s_failure(small):
    filed = written(numbers())
    os.ftruncate(filed.file.descriptor, 100)
    with pytest.raises(OSError, match="ended early") as raised:
        filed.read()
    assert of_the_machine(raised.value)
