"""From training to cards, through the command line."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from qbench.zoo.caption_lists import write_captions
from qbench.zoo.garments import Garment
from qbench.zoo.latent_finish import sheet_captions
from qbench.zoo.tensor_file import read_tensors
from qbench.zoo.train import app

LATENT = ("tiny-ldm", "tiny-ldm-kl", "tiny-sd")
TEXTLESS = ("fashion-vq", "fashion-kl", "clip-tiny")


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result.stderr


@pytest.fixture
def small(small_batches: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("finish", "latent_finish"):
        monkeypatch.setattr(f"qbench.zoo.{module}.SAMPLES", 4)
        monkeypatch.setattr(f"qbench.zoo.{module}.SAMPLING_STEPS", (1, 2))
    monkeypatch.setattr("qbench.zoo.latent_finish.GUIDANCE", (1.0, 3.0))


@pytest.mark.usefixtures("small")
def test_from_training_to_cards(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, said: list[Garment]
) -> None:
    to = tmp_path / "to"
    monkeypatch.setattr("qbench.zoo.paths.WEIGHTS", to / "weights")  # denoisers train on what was finished before
    for name in ("fashion-features", *TEXTLESS, *LATENT):
        told = invoke(name, "--iterations", 2, "--data", data, "--out", tmp_path / name)
        assert f"{name} 2/2 loss" in told
        invoke("finish", name, "--from", tmp_path / name, "--data", data, "--to", to)
    made = {path.name for path in (to / "weights").iterdir()}
    assert made == {f"{name}.safetensors" for name in ("fashion-features", "fashion-train", *TEXTLESS, *LATENT)}
    for name in (*TEXTLESS, *LATENT):
        card = (to / "cards" / f"{name}.md").read_text(encoding="utf-8")
        facts = json.loads((to / "cards" / f"{name}.json").read_text(encoding="utf-8"))
        assert facts["sha256"] in card
        assert str(tmp_path) not in card
        assert f"python -m qbench.zoo.train {name} --seed 0 --iterations 2" in card
        if name != "clip-tiny":
            with Image.open(to / "cards" / f"{name}.png") as picture:
                assert picture.size == (1024, 1024)
    for name in ("fashion-vq", "fashion-kl"):
        factor = json.loads((to / "cards" / f"{name}.json").read_text(encoding="utf-8"))["scaling_factor"]
        assert read_tensors(to / "weights" / f"{name}.safetensors").metadata["scaling_factor"] == str(factor)
    write_captions(tmp_path / "expected", said, said)
    for name in ("evaluation.txt", "calibration.txt"):
        assert (to / "captions" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


def test_the_picture_of_captions_has_a_class_in_each_row() -> None:
    found = sheet_captions()
    assert len(found) == len(set(found)) == 64
    assert found[0] == "a dark slim plain t-shirt"
    assert all(len({each.split()[-1] for each in found[start : start + 8]}) == 1 for start in range(0, 64, 8))
