"""``qbench score``; what it computes is tested with ``qbench.scoring``."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qbench.stages.stage import DEFAULT_BATCH_SIZE

Qbench = Callable[..., Any]
HEAVY = ("torch", "torchvision", "diffusers", "numpy", "pandas", "scipy", "PIL", "safetensors", "rich.progress")


def write(folder: Path, count: int, size: int, seed: int = 0) -> Path:
    folder.mkdir()
    for index, image in enumerate(np.random.default_rng(seed).integers(0, 256, (count, size, size), np.uint8)):
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def samples(workplace: Path) -> Path:
    return write(workplace / "samples", 70, 16)


@pytest.fixture
def real(workplace: Path) -> Path:
    return write(workplace / "real", 80, 16, seed=1)


def test_each_figure_says_what_it_is(qbench: Qbench, samples: Path, real: Path):
    answer = qbench(
        "score", "samples", "--reference", "real", "--metrics", "fd-fashion,is-fashion", "--metrics", "mse-to-fp",
        "--full-precision", "samples", "--batch-size", 7, "--device", "cpu",
    )  # fmt: skip
    assert answer.code == 0
    assert answer.err.splitlines() == ["fashion of samples, 70 images", "fashion of real, 80 images"]
    head, table, *notes = answer.out.rstrip("\n").split("\n\n")
    assert re.fullmatch(r"images: samples, 70 samples, digest of images [0-9a-f]{12}", head.splitlines()[0])
    assert re.fullmatch(r"reference: real, 80 samples, digest of images [0-9a-f]{12}", head.splitlines()[1])
    assert re.fullmatch(r"full precision: samples, 70 samples, digest of images [0-9a-f]{12}", head.splitlines()[2])
    first, second, third = table.splitlines()
    assert re.fullmatch(r"fd-fashion +\d[\d.]+  lower is better, 70 samples", first)
    assert re.fullmatch(r"is-fashion +\d[\d.]+  higher is better, 70 samples", second)
    assert re.fullmatch(r"mse-to-fp +0  lower is better, 70 samples", third)
    assert [note.partition(":")[0] for note in notes] == ["fd-fashion", "is-fashion", "mse-to-fp"]
    assert "Frechet distance on pooled features" in notes[0]
    assert "uint8-rounded 16x16 images" in notes[0]
    assert "\n  extractor fashion, fashion-features.safetensors 70dbf104afcc\n  biased upwards" in notes[0]


def test_json_says_the_same(qbench: Qbench, samples: Path, real: Path):
    words = ("score", samples, "--reference", real, "--metrics", "fd-fashion,is-fashion")
    answer = qbench(*words, "--json")
    assert answer.code == 0
    assert set(answer.json) == {"images", "reference", "full_precision", "captions", "figures"}
    assert answer.json["images"]["samples"] == 70
    assert len(answer.json["reference"]["images"]) == 64
    assert answer.json["captions"] is None
    distance, classes = answer.json["figures"]
    assert (distance["metric"], distance["samples"], distance["failure"]) == ("fd-fashion", 70, None)
    info = distance["info"]
    assert (info["direction"], info["against"]) == ("lower", "real images")
    assert info["protocol"].startswith("uint8-rounded 16x16 images")
    described = info["description"]
    assert described["images"] == answer.json["images"]
    assert described["reference"] == answer.json["reference"]
    assert len(described["extractor"]["weights"]["fashion-features.safetensors"]) == 64
    assert classes["info"]["description"]["reference"] is None
    assert f"{distance['value']:.6g}" in qbench(*words).out


def test_a_figure_that_fails_does_not_lose_the_others(qbench: Qbench, fake_plugins: Path, samples: Path):
    answer = qbench("score", samples, "--metrics", "is-fashion,micro-nan,micro-contrast", "--set",
                    "micro-contrast.power=4")  # fmt: skip
    assert answer.code == 1
    first, second, third = answer.out.split("\n\n")[1].splitlines()
    assert re.fullmatch(r"is-fashion +[\d.]+  higher is better, 70 samples", first)
    assert second == "micro-nan       failed: micro-nan is not finite for these images (nan)"
    assert re.fullmatch(r"micro-contrast +0.2[\d]+  higher is better, 70 samples", third)  # 1 / 5 for even noise
    assert answer.err.splitlines()[-1] == "1 of 3 figures failed"
    answer = qbench("score", samples, "--metrics", "is-fashion,micro-nan", "--json")
    assert answer.code == 1
    assert [each["failure"] for each in answer.json["figures"]] == [
        None, "micro-nan is not finite for these images (nan)",
    ]  # fmt: skip
    assert answer.json["figures"][1]["value"] is None


def test_captions_are_read(qbench: Qbench, samples: Path, workplace: Path):
    (workplace / "captions.txt").write_text("a cat\n" * 70)
    answer = qbench("score", samples, "--metrics", "is-fashion", "--captions", "captions.txt")
    assert answer.code == 0
    assert re.search(r"^captions: captions, 70 lines, digest of captions [0-9a-f]{12}$", answer.out, re.MULTILINE)


REFUSALS = {
    "no such folder": (["none", "--metrics", "is-fashion"], "none does not exist: name a folder of images"),
    "no such reference": (
        ["samples", "--metrics", "fd-fashion", "--reference", "nowhere"],
        "nowhere does not exist: name a folder of images, an .npz or .npy file of them, or an .npz or .safetensors",
    ),
    "no reference": (["samples", "--metrics", "fd-fashion"], "fd-fashion compares with real images: "),
    "unknown metric": (["samples", "--metrics", "is-fasion"], "unknown metric 'is-fasion': did you mean 'is-fashion'?"),
    "no metric": (["samples", "--metrics", ","], "--metrics: name at least one of "),
    "unknown setting": (["samples", "--metrics", "is-fashion", "--set", "is-fashion.a=1"], "--set is-fashion.a: "),
    "no value": (["samples", "--metrics", "is-fashion", "--set", "is-fashion.a=["], "'[' is not a value in YAML"),
    "no device": (["samples", "--metrics", "is-fashion", "--device", "abacus"], "--device abacus: not a device"),
}


@pytest.mark.parametrize(("words", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_wrong_is_one_sentence(qbench: Qbench, samples: Path, words: list[str], sentence: str):
    answer = qbench("score", *words)
    assert (answer.code, answer.out) == (1, "")
    (line,) = answer.err.splitlines()
    assert line.startswith(f"qbench: {sentence}")


@pytest.mark.parametrize(
    "words",
    [
        ["samples"],
        ["samples", "--metrics", "is-fashion", "--batch-size", "0"],
        ["samples", "--metrics", "is-fashion", "--set", "is-fashion.a"],
        ["samples", "--metrics", "is-fashion", "--set", "is-fashion.a=1", "--set", "is-fashion.a=2"],
    ],
)
def test_wrong_usage_is_2(qbench: Qbench, samples: Path, words: list[str]):
    answer = qbench("score", *words)
    assert (answer.code, answer.out) == (2, "")


def test_help_says_the_batch_size(qbench: Qbench):
    assert f"{DEFAULT_BATCH_SIZE} by default" in " ".join(qbench("score", "--help").out.split())


@pytest.mark.parametrize("words", [["--help"], ["score", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]):
    code = (
        "import sys\nfrom qbench.cli.main import main\n"
        f"sys.argv = ['qbench', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "\n")
    assert "score" in done.stdout


def test_ctrl_c_leaves_nothing(fake_plugins: Path, workplace: Path):
    write(workplace / "small", 5, 8)
    temporary, marker = workplace / "temporary", workplace / "marker"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary), "MICRO_PAUSE": "features", "MICRO_MARKER": str(marker)}
    command = [sys.executable, "-m", "qbench", "score", "small", "--metrics", "micro-distance", "--reference", "small"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not marker.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    at_work = list(temporary.glob("qbench-score-*/*"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, len(at_work)) == (130, 1), err
    assert err.splitlines()[-1] == "qbench: stopped; nothing is kept"
    assert list(temporary.glob("qbench*")) == []
