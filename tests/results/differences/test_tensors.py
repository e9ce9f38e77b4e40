from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from qbench.errors import ResultsError
from qbench.results.differences import tensors as tensors_module
from qbench.results.differences.changes import Change
from qbench.results.differences.tensors import FileChange, file_change


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
    return tmp_path / "a", tmp_path / "b"


def arrays(two: tuple[Path, Path], first: Any, second: Any) -> FileChange | None:
    for folder, array in zip(two, (first, second), strict=True):
        np.save(folder / "x.npy", array)
    return file_change("x.npy", two[0] / "x.npy", two[1] / "x.npy")


def tensors(two: tuple[Path, Path], first: Any, second: Any, said: Any = (None, None)) -> FileChange | None:
    for folder, content, metadata in zip(two, (first, second), said, strict=True):
        save_file(content, folder / "x.safetensors", metadata)
    return file_change("x.safetensors", two[0] / "x.safetensors", two[1] / "x.safetensors")


def texts(two: tuple[Path, Path], first: bytes, second: bytes) -> FileChange | None:
    for folder, content in zip(two, (first, second), strict=True):
        (folder / "x.json").write_bytes(content)
    return file_change("x.json", two[0] / "x.json", two[1] / "x.json")


class TestArrays:
    def test_equal_ones_are_no_change(self, two: tuple[Path, Path]):
        assert arrays(two, np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3)) is None

    def test_elements_are_counted_and_the_largest_difference_is_told(self, two: tuple[Path, Path]):
        first = np.array([[0, 255], [7, 7]], np.uint8)
        found = arrays(two, first, np.array([[255, 255], [7, 9]], np.uint8))
        assert found is not None
        assert found.tensor is not None
        assert (found.tensor.name, found.tensor.first) == ("", "uint8 [2, 2]")
        assert (found.tensor.elements, found.tensor.differing, found.tensor.largest) == (4, 2, 255.0)

    def test_nan_in_the_same_place_is_the_same(self, two: tuple[Path, Path]):
        assert arrays(two, np.array([np.nan, 1.0, np.inf]), np.array([np.nan, 1.0, np.inf])) is None

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_is_no_number_on_one_side_has_no_largest_difference(self, two: tuple[Path, Path], value: float):
        found = arrays(two, np.array([value, 1.0]), np.array([2.0, 1.5]))
        assert found is not None
        assert found.tensor is not None
        assert (found.tensor.differing, found.tensor.largest) == (2, None)

    def test_another_shape_or_type_is_told(self, two: tuple[Path, Path]):
        for second, said in ((np.zeros((3, 2), np.float32), "float32 [3, 2]"), (np.zeros((2, 3)), "float64 [2, 3]")):
            found = arrays(two, np.zeros((2, 3), np.float32), second)
            assert found is not None
            assert found.tensor is not None
            assert (found.tensor.first, found.tensor.second) == ("float32 [2, 3]", said)

    def test_empty_ones_and_single_numbers_can_be_compared(self, two: tuple[Path, Path]):
        assert arrays(two, np.zeros((0, 3)), np.zeros((0, 3))) is None
        found = arrays(two, np.array(1), np.array(4))
        assert found is not None
        assert found.tensor is not None
        assert found.tensor.largest == 3.0

    def test_large_ones_are_compared_piece_by_piece(self, two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(tensors_module, "CHUNK_ELEMENTS", 5)
        first = np.arange(60.0).reshape(20, 3)
        second = first.copy()
        second[[0, 7, 19]] += [[1.0], [2.0], [0.5]]
        found = arrays(two, first, second)
        assert found is not None
        assert found.tensor is not None
        assert (found.tensor.differing, found.tensor.largest) == (9, 2.0)


class TestFilesOfTensors:
    def test_the_first_that_differs_is_told_block_2_before_block_10(self, two: tuple[Path, Path]):
        first = {f"blocks.{index}.weight": torch.full((4,), float(index)) for index in range(12)}
        second = {name: tensor + (name.split(".")[1] in ("2", "10")) for name, tensor in first.items()}
        found = tensors(two, first, second)
        assert found is not None
        assert found.tensor is not None
        assert (found.tensor.name, found.tensor.differing, found.tensor.largest) == ("blocks.2.weight", 4, 1.0)
        assert (found.differing, found.tensors) == (2, 12)

    def test_one_that_is_on_one_side_only_differs(self, two: tuple[Path, Path]):
        found = tensors(two, {"a": torch.ones(2)}, {"a": torch.ones(2), "b": torch.ones(3, dtype=torch.int8)})
        assert found is not None
        assert found.tensor is not None
        assert (found.tensor.name, found.tensor.first, found.tensor.second) == ("b", "", "int8 [3]")

    @pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn, torch.float16, torch.int64, torch.bool])
    def test_every_type_can_be_compared(self, two: tuple[Path, Path], kind: torch.dtype):
        first = torch.tensor([0.0, 1.0, 0.0]).to(kind)
        assert tensors(two, {"a": first}, {"a": first.clone()}) is None
        found = tensors(two, {"a": first}, {"a": torch.tensor([0.0, 1.0, 1.0]).to(kind)})
        assert found is not None
        assert found.tensor is not None
        assert (found.tensor.differing, found.tensor.largest) == (1, 1.0)

    def test_what_they_say_of_themselves_is_compared_but_for_the_checksum(self, two: tuple[Path, Path]):
        tensor = {"a": torch.ones(2)}
        said = [{"qbench": '{"checksum": "' + sum_ + '", "grids": {"conv": {"bits": ' + bits + "}}}"} for sum_, bits in
                (("0", "4"), ("1", "8"))]  # fmt: skip
        found = tensors(two, tensor, tensor, said)
        assert found == FileChange("x.safetensors", tensors=1, values=(Change("qbench.grids.conv.bits", 4, 8),))
        assert tensors(two, tensor, tensor, (said[0], {"qbench": said[0]["qbench"].replace('"0"', '"1"')})) is None

    @pytest.mark.parametrize("name", ["x.safetensors", "x.npy"])
    def test_one_that_cannot_be_read_is_one_sentence(self, two: tuple[Path, Path], name: str):
        for folder in two:
            (folder / name).write_bytes(b"nonsense")
        with pytest.raises(ResultsError, match=f"{name}: cannot be read"):
            file_change(name, two[0] / name, two[1] / name)


class TestOtherFiles:
    def test_json_is_compared_by_path(self, two: tuple[Path, Path]):
        found = texts(two, b'{"value": 1.5, "n": [1]}', b'{"value": 2.5, "n": [1]}')
        assert found == FileChange("x.json", values=(Change("value", 1.5, 2.5),))

    def test_other_bytes_differ_and_that_is_all(self, two: tuple[Path, Path]):
        assert texts(two, b"\xff", b"\xfe") == FileChange("x.json")
        assert texts(two, b"\xff", b"\xff") is None

    def test_one_that_is_gone_is_one_sentence(self, two: tuple[Path, Path]):
        with pytest.raises(ResultsError, match=r"x\.json: cannot be read"):
            file_change("x.json", two[0] / "x.json", two[1] / "x.json")
