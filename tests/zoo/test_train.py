"""The command line, seen from outside."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.loop import Moment
from qbench.zoo.paths import TOKENIZER
from qbench.zoo.train import TRAININGS, app


def invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.usefixtures("data")
def test_a_run_writes_into_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("fashion-features", "--iterations", "2")
    assert result.exit_code == 0, result.output
    assert "Wrote zoo-out/fashion-features/weights.safetensors" in result.output
    assert "fashion-features 2/2 loss" in result.stderr
    assert invoke("tiny-ddim", "--iterations", "1", "--seed", "3").exit_code == 0
    assert (tmp_path / "zoo-out" / "tiny-ddim-seed3" / "weights.safetensors").is_file()


@pytest.mark.usefixtures("data")
def test_other_settings_are_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    assert invoke("fashion-features", "--iterations", "1", "--out", str(tmp_path)).exit_code == 0
    result = invoke("fashion-features", "--iterations", "2", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "other settings (iterations 1 there, 2 asked)" in result.stderr
    assert "Traceback" not in result.output
    assert invoke("fashion-features", "--iterations", "2", "--out", str(tmp_path), "--fresh").exit_code == 0


@pytest.mark.usefixtures("data")
def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def impatient(name: str, iterations: int) -> Iterator[object]:
        def watch(moment: Moment) -> None:
            if moment.iteration == 2:
                signal.raise_signal(signal.SIGINT)

        yield watch

    monkeypatch.setattr("qbench.zoo.progress.progress", impatient)
    result = invoke("fashion-features", "--iterations", "5", "--out", str(tmp_path))
    assert result.exit_code == 130
    assert "The same command goes on from there" in result.stderr
    assert (tmp_path / "checkpoint.safetensors").is_file()


def test_missing_data_is_one_sentence(tmp_path: Path) -> None:
    result = invoke("tiny-ddim", "--data", str(tmp_path))
    assert result.exit_code == 1
    assert "train-images-idx3-ubyte.gz does not exist" in result.stderr


@pytest.mark.usefixtures("data")
def test_an_unfinished_run_cannot_be_finished(tmp_path: Path) -> None:
    result = invoke("finish", "tiny-ddim", "--from", str(tmp_path), "--to", str(tmp_path / "to"))
    assert result.exit_code == 1
    assert "holds no finished run" in result.stderr
    assert not (tmp_path / "to").exists()


@pytest.mark.usefixtures("data")
def test_from_training_to_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbench.zoo.finish.SAMPLES", 4)
    monkeypatch.setattr("qbench.zoo.finish.SAMPLING_STEPS", (1, 2))
    runs = {name: str(tmp_path / name) for name in ("features", "zero", "one")}
    assert invoke("fashion-features", "--iterations", "2", "--out", runs["features"]).exit_code == 0
    for seed, name in enumerate(("zero", "one")):
        assert invoke("tiny-ddim", "--iterations", "1", "--seed", str(seed), "--out", runs[name]).exit_code == 0
    to = ["--to", str(tmp_path / "to")]
    assert invoke("finish", "fashion-features", "--from", runs["features"], *to).exit_code == 0
    result = invoke("finish", "tiny-ddim", "--from", runs["zero"], "--sibling", runs["one"], *to)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "to" / "weights").iterdir()) == [
        "fashion-features.safetensors",
        "fashion-train.safetensors",
        "tiny-ddim.safetensors",
    ]
    shipped = (tmp_path / "to" / "weights" / "tiny-ddim.safetensors").read_bytes()
    assert shipped == (tmp_path / "zero" / "weights.safetensors").read_bytes()
    card = (tmp_path / "to" / "cards" / "tiny-ddim.md").read_text()
    assert "--seed 1 --iterations 1 --threads 1 --device cpu" in card
    assert "| figure | seed 0 (shipped) | seed 1 (sibling) |" in card
    assert card.count("not measured |") == 1
    assert str(tmp_path) not in card


@pytest.mark.usefixtures("data")
def test_too_few_images_to_ship_are_one_sentence(tmp_path: Path) -> None:
    result = invoke("calibration-images", "--to", str(tmp_path / "to"))
    assert result.exit_code == 1
    assert result.stderr == "Error: 1,024 images are to ship, and the data set has 64.\n"
    assert not (tmp_path / "to").exists()


def test_calibration_images_and_their_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synthetic: FashionMnist
) -> None:
    large = FashionMnist(np.tile(synthetic.images, (40, 1, 1, 1)), np.tile(synthetic.labels, 40))
    monkeypatch.setattr("qbench.zoo.fashion_mnist.load_fashion_mnist", lambda split, folder: large)
    result = invoke("calibration-images", "--to", str(tmp_path / "to"))
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "to" / "weights").iterdir()] == ["fashion-calibration.safetensors"]
    assert sorted(path.name for path in (tmp_path / "to" / "cards").iterdir()) == [
        "fashion-calibration.json",
        "fashion-calibration.md",
    ]
    card = (tmp_path / "to" / "cards" / "fashion-calibration.md").read_text()
    assert "of the 2,560 training images" in card
    assert str(tmp_path) not in card


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; import qbench.zoo, qbench.zoo.paths, qbench.zoo.train; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'torchvision')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_wrong_name_is_one_sentence(tmp_path: Path) -> None:
    result = invoke("tiny-lmd")
    assert result.exit_code == 2
    assert "No such command 'tiny-lmd'" in result.stderr
    result = invoke("finish", "tiny-lmd", "--from", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr == "Error: There is no model 'tiny-lmd': did you mean 'tiny-ldm'?\n"


def test_a_denoiser_of_latents_needs_its_first_stage(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qbench.zoo.paths.WEIGHTS", tmp_path)
    result = invoke("tiny-ldm", "--data", str(data), "--out", str(tmp_path / "run"))
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path / 'fashion-vq.safetensors'} does not exist.\n"
    assert not (tmp_path / "run").exists()


def test_the_tokenizer_is_written_as_it_ships(tmp_path: Path) -> None:
    assert invoke("tokenizer", "--to", str(tmp_path)).exit_code == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "tokenizer").iterdir()}
    assert written == {path.name: path.read_bytes() for path in TOKENIZER.iterdir()}


def test_help_names_every_model() -> None:
    said = invoke("--help").output
    assert [name for name in TRAININGS if name not in said] == []
