"""Batches are halved where memory gives out, and nothing that was done is done again. No device: errors are raised."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qbench.devices import is_out_of_memory
from qbench.errors import StageError
from qbench.stages import batching
from qbench.stages.batching import LARGEST_BATCH_SIZE, Batches, cut
from qbench.stages.sample import SHARD_SIZE
from qbench.stages.stage import DEFAULT_BATCH_SIZE, Runtime, Work

CPU, META = torch.device("cpu"), torch.device("meta")  # meta in place of an accelerator
GoOn = Callable[[], None]


class Memory:
    """Holds a number of rows at a time; remembers what it has held and refused."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.held: list[range] = []
        self.refused: list[int] = []

    def __call__(self, batch: range, _: GoOn) -> None:
        if len(batch) > self.rows:
            self.refused.append(len(batch))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.held.append(batch)

    def sizes(self) -> list[int]:
        rows = [row for batch in self.held for row in batch]
        assert len(rows) == len(set(rows))  # nothing is done twice
        return [len(batch) for batch in sorted(self.held, key=lambda each: each.start)]


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_known", {})


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(said: list[str], tmp_path: Path) -> Callable[..., tuple[Batches, dict[str, Any]]]:
    def make_one(device: torch.device, size: int | None = None) -> tuple[Batches, dict[str, Any]]:
        work = Work({}, tmp_path, Runtime(batch_size=size), lambda amount: None, said.append)
        return Batches(work, "sampling tiny-ddim", device), work.made_with

    return make_one


Make = Callable[..., tuple[Batches, dict[str, Any]]]


def test_a_shard_is_the_largest_batch() -> None:
    assert LARGEST_BATCH_SIZE == SHARD_SIZE


def test_a_cpu_keeps_to_the_default_and_says_nothing(make: Make, said: list[str]) -> None:
    batches, made_with = make(CPU)
    memory = Memory(1000)
    batches.run(SHARD_SIZE, memory)
    assert memory.sizes() == [DEFAULT_BATCH_SIZE] * 2
    assert (made_with, said) == ({}, [])


def test_an_accelerator_is_tried_with_a_whole_shard(make: Make, said: list[str]) -> None:
    batches, made_with = make(META)
    memory = Memory(1000)
    batches.run(SHARD_SIZE, memory)
    assert memory.sizes() == [SHARD_SIZE]
    assert (made_with, said) == ({"batch_sizes": [SHARD_SIZE]}, [])


def test_it_is_halved_until_it_fits_and_remembered(make: Make, said: list[str]) -> None:
    first, made_with = make(META)
    memory = Memory(70)
    first.run(SHARD_SIZE, memory)
    assert memory.refused == [250, 125]
    assert memory.sizes() == [63, 63, 63, 61]
    assert made_with == {"batch_sizes": [63]}
    assert said == [
        "sampling tiny-ddim: meta has too little memory for a batch of 250; going on with 125",
        "sampling tiny-ddim: meta has too little memory for a batch of 125; going on with 63",
    ]
    again, _ = make(META)
    later = Memory(70)
    again.run(SHARD_SIZE, later)
    assert (later.refused, later.sizes()) == ([], [63, 63, 63, 61])
    assert len(said) == 2


def test_what_was_done_before_memory_gave_out_stays(make: Make) -> None:
    batches, made_with = make(META, 100)
    memory = Memory(100)

    def run(batch: range, go_on: GoOn) -> None:
        if batch.start == 100:
            memory.rows = 50
        memory(batch, go_on)

    batches.run(SHARD_SIZE, run)
    assert memory.refused == [100]
    assert memory.sizes() == [100, 50, 50, 50]
    assert made_with == {"batch_sizes": [100, 50]}


def test_batches_that_run_side_by_side_are_cut_again_too(make: Make) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        batches, _ = make(CPU, 10)
        memory = Memory(4)
        batches.run(40, memory, together=True)
    finally:
        torch.set_num_threads(before)
    assert memory.sizes() == [3] * 13 + [1]


@pytest.mark.parametrize("size", [None, 1, 7])
def test_a_batch_of_one_that_does_not_fit_is_one_sentence(make: Make, size: int | None) -> None:
    batches, _ = make(META, size)
    with pytest.raises(
        StageError, match=r"^sampling tiny-ddim: meta has too little memory for a batch of 1: .*--device"
    ):
        batches.run(SHARD_SIZE, Memory(0))


def test_other_errors_are_not_taken_for_it(make: Make) -> None:
    batches, _ = make(META)

    def run(batch: range, _: GoOn) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        batches.run(10, run)


def test_the_failed_batch_holds_no_memory_when_the_next_begins(make: Make) -> None:
    """The traceback of an exception keeps the frames alive, and these the tensors."""
    import weakref

    batches, _ = make(META, 8)
    held: list[weakref.ref[torch.Tensor]] = []

    def run(batch: range, _: GoOn) -> None:
        assert [each for each in held if each() is not None] == []
        large = torch.zeros(len(batch))
        held.append(weakref.ref(large))
        if len(batch) > 2:
            raise torch.OutOfMemoryError

    batches.run(8, run)
    assert len(held) == 6


class TestWorkThatCannotBeCut:
    def test_is_done_again_with_half(self, make: Make, said: list[str]) -> None:
        batches, made_with = make(META, 100)
        tried: list[int] = []

        def run(size: int) -> None:
            tried.append(size)
            if size > 30:
                raise torch.OutOfMemoryError

        batches.whole(1000, run)
        assert tried == [100, 50, 25]
        assert made_with == {"batch_sizes": [25]}
        assert len(said) == 2

    def test_half_of_what_there_is(self, make: Make) -> None:
        batches, made_with = make(META, 100)

        def run(size: int) -> None:
            if size > 10:
                raise torch.OutOfMemoryError

        batches.whole(16, run)
        assert made_with == {"batch_sizes": [8]}

    def test_but_not_for_ever(self, make: Make) -> None:
        batches, _ = make(META, 100)
        tried: list[int] = []

        def run(size: int) -> None:
            tried.append(size)
            raise torch.OutOfMemoryError

        with pytest.raises(StageError, match=r"a batch of 25: .*--cache-gb"):
            batches.whole(1000, run)
        assert tried == [100, 50, 25]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, max allowed: 18.1 GB)"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (MemoryError(), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("MPS backend out of memory"), False),
    ],
)
def test_what_counts_as_too_little_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_cut() -> None:
    assert list(cut(range(3, 10), 3)) == [range(3, 6), range(6, 9), range(9, 10)]
    assert list(cut(range(0), 3)) == []
