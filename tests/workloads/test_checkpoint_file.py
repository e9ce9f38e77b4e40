import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from qbench.errors import DataError
from qbench.workloads.checkpoint_file import averaged, read_checkpoint

TENSORS = {"model.a.weight": torch.arange(6.0).reshape(2, 3), "model.b": torch.ones(2, dtype=torch.float16)}


def assert_read(path: Path) -> None:
    found = read_checkpoint(path)
    assert found.keys() == TENSORS.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in TENSORS.items()
    )


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as error:
        read_checkpoint(path)
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin"])
@pytest.mark.parametrize("content", [TENSORS, {"state_dict": TENSORS, "epoch": 3, "optimizer_states": [{"lr": 0.1}]}])
def test_pickles_of_tensors(suffix: str, content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / f"model{suffix}")
    assert_read(tmp_path / f"model{suffix}")


def test_the_format_before_torch_1_6(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "model.ckpt", _use_new_zipfile_serialization=False)
    assert_read(tmp_path / "model.ckpt")


def test_safetensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert_read(tmp_path / "model.safetensors")


class ModelCheckpoint:
    """Stands for Lightning's class of this name while it is pickled."""

    def __init__(self) -> None:
        self.best = np.float64(0.25)


def test_what_training_leaves_behind_is_neither_imported_nor_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in sd-v1-4.ckpt: a class of Lightning as a key, numpy scalars; and an object with a state."""
    place = "pytorch_lightning.callbacks.model_checkpoint"
    with monkeypatch.context() as context:
        context.setattr(ModelCheckpoint, "__module__", place)
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks", place):
            context.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[place].ModelCheckpoint = ModelCheckpoint
        state = {"best_model_score": torch.tensor(0.5), "current": np.float64(0.5), "array": np.arange(3)}
        torch.save(
            {"state_dict": TENSORS, "callbacks": {ModelCheckpoint: state}, "object": ModelCheckpoint()},
            tmp_path / "model.ckpt",
        )
    allowed = set(torch.serialization.get_safe_globals())
    assert_read(tmp_path / "model.ckpt")
    assert place not in sys.modules
    assert set(torch.serialization.get_safe_globals()) == allowed


class Malicious:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code(zipped: bool, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    content = {"state_dict": TENSORS, "x": Malicious(os.mkdir, str(marker))}
    torch.save(content, tmp_path / "model.ckpt", _use_new_zipfile_serialization=zipped)
    text = refusal(tmp_path / "model.ckpt")
    assert "is a pickle that holds more than weights (posix.mkdir)" in text
    assert "save its state_dict with safetensors.torch.save_file" in text
    assert not marker.exists()


def test_a_pickle_that_would_run_code_of_a_training_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run(value: int) -> None:
        ran.append(value)

    run.__module__, run.__qualname__ = "numpy.evil", "run"
    module: Any = types.ModuleType("numpy.evil")
    module.run = run
    monkeypatch.setitem(sys.modules, "numpy.evil", module)
    torch.save({"state_dict": TENSORS, "x": Malicious(run, 1)}, tmp_path / "model.ckpt")
    assert_read(tmp_path / "model.ckpt")
    assert ran == []


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 10, 300, -10])
def test_truncated_files(suffix: str, kept: int, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": {"model.a": torch.arange(400.0)}}, path)
    else:
        save_file({"model.a": torch.arange(400.0)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "is truncated, damaged, or not of the kind that its name says" in refusal(path)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_something_else_under_the_name(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"model{suffix}").write_text("<html>not found</html>" * 20)
    assert "not of the kind that its name says; fetch it again" in refusal(tmp_path / f"model{suffix}")


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "model.ckpt")
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert "is of an unknown kind; known are .bin, .ckpt, .pt, .pth, .safetensors" in refusal(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": [1]}, {"epoch": 3}, {"array": np.arange(3)}])
def test_no_tensors(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.ckpt")
    assert "holds no " in refusal(tmp_path / "model.ckpt")


def test_averages_take_the_weights_place() -> None:
    tensors = {
        "model.net.0.weight": torch.zeros(2),
        "model_ema.net0weight": torch.ones(2),
        "model_ema.decay": torch.tensor(0.9),
        "model_ema.num_updates": torch.tensor(3),
        "first_stage_model.x": torch.full((2,), 7.0),
    }
    chosen, has_averages = averaged(Path("x.ckpt"), tensors)
    assert has_averages
    assert chosen.keys() == {"model.net.0.weight", "first_stage_model.x"}
    assert torch.equal(chosen["model.net.0.weight"], torch.ones(2))
    plain, has_averages = averaged(Path("x.ckpt"), {"model.net.0.weight": torch.zeros(2)})
    assert not has_averages
    assert torch.equal(plain["model.net.0.weight"], torch.zeros(2))
    del tensors["model_ema.net0weight"]
    tensors["model_ema.net0bias"] = torch.ones(2)
    with pytest.raises(DataError, match=r"the first that differ: model_ema\.net0bias, model_ema\.net0weight"):
        averaged(Path("x.ckpt"), tensors)
