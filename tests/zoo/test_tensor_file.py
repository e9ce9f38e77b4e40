from pathlib import Path

import pytest
import torch

from qbench.errors import DataError
from qbench.zoo.tensor_file import read_tensors, write_tensors


def test_content_survives(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3).half(), "a": torch.tensor(3.5, dtype=torch.float64)}
    write_tensors(tmp_path / "deep" / "x.safetensors", tensors, {"who": "me"})
    file = read_tensors(tmp_path / "deep" / "x.safetensors")
    assert file.metadata == {"who": "me"}
    assert file.tensors.keys() == tensors.keys()
    assert all(torch.equal(file.tensors[name], tensor) for name, tensor in tensors.items())


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    tensors = {name: torch.full((3,), float(index)) for index, name in enumerate("abcdef")}
    said = {f"key{index}": str(index) for index in range(20)}
    write_tensors(tmp_path / "one", tensors, said)
    write_tensors(tmp_path / "two", dict(reversed(tensors.items())), dict(reversed(said.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    for value in (0.0, 1.0):
        write_tensors(tmp_path / "x", {"a": torch.tensor(value)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert read_tensors(tmp_path / "x").tensors["a"] == 1.0


def test_a_failed_write_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tensors(tmp_path / "x", {"a": torch.tensor(0.0)}, {})

    def full(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_tensors(tmp_path / "x", {"a": torch.tensor(1.0)}, {})
    assert read_tensors(tmp_path / "x").tensors["a"] == 0.0


def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"a": torch.arange(9.0)}, {})
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-1])
    with pytest.raises(DataError, match="not a readable safetensors file"):
        read_tensors(tmp_path / "x")
