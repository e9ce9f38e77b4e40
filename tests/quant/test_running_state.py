import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.diffusion.structures import State
from qbench.errors import StageError
from qbench.quant import CalibrationData, QuantModel, StepGrid, min_max_per_channel
from qbench.quant.running_state import Budget, RunningState, slices

pytestmark = pytest.mark.usefixtures("one_thread")

PLENTY = 2**30
MAPS = Path("/proc/self/maps")
WITH_AND_WITHOUT_FALLOCATE = pytest.mark.parametrize("fallocate", [True, False])
"""Not every system has posix_fallocate."""
FULL_DISK = """
import subprocess, sys, torch
from pathlib import Path
from qbench.errors import StageError
from qbench.quant.running_state import Budget
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
print("mounted", flush=True)
try:
    Budget(0, folder).rows(100, torch.zeros(1, 1000)).write(slice(0, 100), torch.ones(100, 1000))
except StageError:
    print("refused")
"""


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestBudget:
    @pytest.mark.parametrize("size", [0, PLENTY])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
    def test_rows_are_what_was_written(self, tmp_path: Path, size: int, dtype: torch.dtype) -> None:
        values = torch.randn(7, 3, 2).mul(100).to(dtype)
        rows = Budget(size, tmp_path).rows(7, values[:2])
        for part in slices(7, 3):
            rows.write(part, values[part])
        assert len(rows) == 7
        assert rows[slice(0, 7)].dtype == dtype
        assert torch.equal(rows[slice(2, 6)], values[2:6])
        assert torch.equal(rows[torch.tensor([5, 0, 5])], values[[5, 0, 5]])

    def test_it_counts_bytes_where_they_are(self, tmp_path: Path) -> None:
        budget = Budget(1000, tmp_path)
        kept = [budget.rows(5, ones(2, 10)), budget.rows(10, ones(1, 10, dtype=torch.float64))]
        assert (budget.used, budget.spilled) == (1000, 0)  # to the brim
        kept.append(budget.rows(3, ones(1, 1)))
        assert (budget.used, budget.spilled) == (1000, 12)
        kept.pop(0)
        assert (budget.used, budget.spilled) == (800, 12)
        kept.append(budget.rows(50, ones(1)))  # there is room again
        assert (budget.used, budget.spilled) == (1000, 12)
        kept.clear()
        assert (budget.used, budget.spilled) == (0, 0)

    @pytest.mark.skipif(not MAPS.exists(), reason="the system does not tell what is mapped")
    def test_files_have_no_name(self, tmp_path: Path) -> None:
        rows = Budget(0, tmp_path).rows(100, ones(1, 100))
        rows.write(slice(0, 100), ones(100, 100))
        assert list(tmp_path.iterdir()) == []
        mapped = [line for line in MAPS.read_text().splitlines() if str(tmp_path) in line]
        assert len(mapped) == 1
        del rows
        assert str(tmp_path) not in MAPS.read_text()

    @pytest.mark.skipif(not MAPS.exists(), reason="the system does not tell what is mapped")
    def test_without_a_folder_files_go_to_the_systems(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        rows = Budget(0).rows(100, ones(1, 100))
        assert str(tmp_path) in MAPS.read_text()
        assert len(rows) == 100

    def test_a_folder_that_takes_no_files_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for folder in (tmp_path / "absent", tmp_path / "file"):
            budget = Budget(0, folder)
            with pytest.raises(StageError, match="does not fit the cache and cannot go to a file"):
                budget.rows(5, ones(1, 3))
            assert (budget.used, budget.spilled) == (0, 0)

    @WITH_AND_WITHOUT_FALLOCATE
    def test_a_file_that_must_not_grow_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fallocate: bool
    ) -> None:
        budget = Budget(0, tmp_path)
        if not fallocate:
            monkeypatch.delattr(os, "posix_fallocate", raising=False)
        with files_up_to(1000), pytest.raises(StageError, match="cannot go to a file"):
            budget.rows(100, ones(1, 100))
        assert budget.spilled == 0
        assert list(tmp_path.iterdir()) == []

    @WITH_AND_WITHOUT_FALLOCATE
    def test_room_is_taken_before_a_file_is_mapped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fallocate: bool
    ) -> None:
        """A page that finds no room later ends the process."""
        taken, from_file = [], torch.from_file

        def look(name: str, *arguments: Any, **keywords: Any) -> Tensor:
            taken.append((os.stat(name).st_size, os.stat(name).st_blocks * 512))
            return from_file(name, *arguments, **keywords)

        monkeypatch.setattr(torch, "from_file", look)
        if not fallocate:
            monkeypatch.delattr(os, "posix_fallocate", raising=False)
        sizes = [4 * 3, 4 * 300_000, 4 * 2**18]  # some of a block, some blocks and a bit, whole blocks
        for size in sizes:
            rows = Budget(0, tmp_path).rows(size // 4, ones(1))
            rows.write(slice(0, size // 4), torch.arange(size // 4) * 1.0)
            assert torch.equal(rows[slice(0, size // 4)], torch.arange(size // 4) * 1.0)
        assert [size for size, _ in taken] == sizes
        assert all(blocks >= size for size, blocks in taken)

    @pytest.mark.slow
    @pytest.mark.parametrize("fallocate", [True, False])
    def test_a_full_disk_is_told(self, tmp_path: Path, fallocate: bool) -> None:
        script = FULL_DISK if fallocate else f"import os\ndel os.posix_fallocate\n{FULL_DISK}"
        command = ["unshare", "--mount", "--map-root-user", sys.executable, "-c", script, str(tmp_path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except FileNotFoundError:
            pytest.skip("there is no unshare to mount a small disk with")
        if "mounted" not in done.stdout:
            pytest.skip("no small disk can be mounted here")
        assert (done.returncode, done.stdout) == (0, "mounted\nrefused\n")


def states(model: QuantModel, data: CalibrationData, budget: Budget) -> Iterator[RunningState]:
    """The state before each segment, and the one behind the last."""
    state = RunningState(model, data, budget)
    yield state
    for segment in model.structure.segments:
        state = state.behind(segment)
        yield state


def plain_states(model: QuantModel, data: CalibrationData, rows: slice) -> Iterator[State]:
    """The same of some rows, by themselves."""
    context = {name: tensor[rows] for name, tensor in data.context.items()}
    state = State(data.x[rows], data.timesteps[rows], context=context)
    yield state
    for segment in model.structure.segments:
        with torch.no_grad(), model.at(data.step_indices[rows]):
            state = segment.run(model.module, state)
        yield state


def with_step_grids(model: QuantModel) -> QuantModel:
    """Grids that a wrong step, or none, would betray."""
    for layer in model.layers.values():
        layer.weight_grid = min_max_per_channel(layer.weight, 3)
        layer.input_grid = StepGrid(4, torch.tensor([0.1, 0.2, 0.4, 0.8]), torch.tensor([8.0, 7.0, 6.0, 5.0]))
    return model


def tensors_of(state: State) -> dict[str, Tensor]:
    named = {"h": state.h, "timesteps": state.timesteps, "embedding": state.embedding} | state.context
    named |= {f"skip {index}": skip for index, skip in enumerate(state.skips)}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("size", [0, 10_000, PLENTY])
def test_it_moves_all_rows_as_each_batch_would_move_alone(
    kind: str,
    size: int,
    tmp_path: Path,
    small_model: Callable[..., QuantModel],
    small_data: Callable[..., CalibrationData],
) -> None:
    """In float64, where the order of sums is of no matter."""
    model = with_step_grids(small_model(kind, dtype=torch.float64))
    data = small_data(kind, count=5, batch_size=3, dtype=torch.float64)
    for part in slices(5, 3):
        alone = plain_states(model, data, part)
        for state, wanted in zip(states(model, data, Budget(size, tmp_path)), alone, strict=True):
            found, expected = tensors_of(state.batch(part)), tensors_of(wanted)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
            assert torch.equal(state.h[part], found["h"])
            assert state.embedding is None or torch.equal(state.embedding[part], found["embedding"])
            assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["image", "text"])
def test_in_float32_it_moves_to_the_bit_or_to_the_last_digits_behind_self_attention(
    kind: str, small_model: Callable[..., QuantModel], small_data: Callable[..., CalibrationData]
) -> None:
    # Diffusers hands an image on from its self-attention with the channels last in memory. Rows do not keep strides:
    # it would be for nothing but the order in which the layers behind sum, which is 5e-7 of the largest value here.
    model, data, part = small_model(kind), small_data(kind), slice(4, 8)
    alone = plain_states(model, data, part)
    exact = []
    for state, wanted in zip(states(model, data, Budget(PLENTY)), alone, strict=True):
        found = state.batch(part).h
        assert float((found - wanted.h).abs().max()) <= 2e-6 * float(wanted.h.abs().max())
        exact.append(torch.equal(found, wanted.h))
    first = next((i for i, each in enumerate(model.structure.segments) if each.kind == "attention"), None)
    assert first is not None
    assert all(exact if kind == "text" else exact[: first + 2])  # what it puts out itself is exact


def test_rows_come_in_the_order_that_is_asked_for(
    small_model: Callable[..., QuantModel], small_data: Callable[..., CalibrationData]
) -> None:
    model, data = small_model("text"), small_data("text")
    wanted = torch.tensor([7, 0, 9, 7])
    *_, state = list(states(model, data, Budget(PLENTY)))[:10]
    found, every = state.batch(wanted), state.batch(slice(0, 10))
    assert len(every.skips) > 1
    assert torch.equal(found.h, every.h[wanted])
    assert torch.equal(found.timesteps, data.timesteps[wanted])
    assert all(torch.equal(few, all_rows[wanted]) for few, all_rows in zip(found.skips, every.skips, strict=True))
    text = "encoder_hidden_states"
    assert torch.equal(found.context[text], data.context[text][wanted])


@pytest.mark.parametrize("kind", ["image", "text"])
def test_what_a_segment_leaves_alone_is_kept_once_and_what_is_done_with_goes(
    kind: str, small_model: Callable[..., QuantModel], small_data: Callable[..., CalibrationData]
) -> None:
    model, data, budget = small_model(kind), small_data(kind), Budget(PLENTY)
    used = []
    for state, one in zip(states(model, data, budget), plain_states(model, data, slice(0, 1)), strict=True):
        each = {id(tensor): tensor for tensor in (one.h, one.embedding, *one.skips) if tensor is not None}
        own = sum(4 * tensor.numel() for tensor in each.values() if tensor.data_ptr() != data.x.data_ptr())
        used.append(budget.used)
        assert budget.used == own * len(data)
        assert len(state.batch(slice(0, 1)).skips) == len(one.skips)
    assert used[0] == 0 < max(used)
    assert used[1] == 4 * state.embedding[slice(0, 10)].numel()
    del state
    assert (budget.used, budget.spilled) == (0, 0)


def test_gradients_and_flags_are_left_alone(
    small_model: Callable[..., QuantModel], small_data: Callable[..., CalibrationData]
) -> None:
    model, data = small_model(), small_data()
    model.module.requires_grad_(True)
    model.module.train()
    for state in states(model, data, Budget(PLENTY)):
        assert not state.batch(slice(0, 2)).h.requires_grad
    assert all(module.training for module in model.module.modules())


@pytest.mark.parametrize(("count", "size"), [(1, 1), (10, 3), (9, 3), (2, 5)])
def test_slices_cover_every_row_once(count: int, size: int) -> None:
    found = slices(count, size)
    assert [row for part in found for row in range(count)[part]] == list(range(count))
    assert len(found) == math.ceil(count / size)
    assert all(part.stop <= count for part in found)
