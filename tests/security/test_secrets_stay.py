"""What is secret, or says where another machine is, reaches no file and no log."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SECRETS = {
    "HF_TOKEN": "hf_abcdefS3CR3Ttoken",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnS3CR3Tkey/+EXAMPLE",
    "DB_PASSWORD": "pass'word \\S3CR3T",
    "WANDB_API_KEY": "0123456789S3CR3Tabcdef",
    "HTTPS_PROXY": "http://someone:S3CR3Tproxy@proxy.internal.example:3128",
    "HF_ENDPOINT": "https://hub.internal.example",
    "RAY_ADDRESS": "ray://head.internal.example:10001",
    "S3_ENDPOINT_URL": "https://s3.internal.example:9000",
}
PIECES = ("S3CR3T", "internal.example", "signed-by-me")
LEAKS = """\
import os

from micro_plugins import Round, MicroDistance
from qbench.errors import DataError, StageError

WORDS = (
    "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "WANDB_API_KEY", "HTTPS_PROXY", "HF_ENDPOINT", "RAY_ADDRESS",
    "S3_ENDPOINT_URL",
)


def everything():
    told = " ".join(f"{os.environ[name]} {os.environ[name]!r}" for name in WORDS)
    signed = "https://user:S3CR3Turl@example.org/a?X-Amz-Signature=signed-by-me&token=signed-by-me"
    return f"{told} {signed} Authorization: Bearer S3CR3Tbearer.S3CR3T git+ssh://S3CR3Tname@example.org/b"


class Leaks(Round):
    title = "tells everything"

    def quantize_weights(self, model, data, bits):
        raise RuntimeError(everything())


class Refuses(Round):
    title = "refuses and tells everything"

    def quantize_weights(self, model, data, bits):
        try:
            raise KeyError(everything())
        except KeyError as error:
            raise StageError(everything()) from error


class LeakyMetric(MicroDistance):
    title = "tells everything"

    def weights(self):
        raise DataError(everything())

    def compute(self, sums, reference):
        raise ValueError(everything())
"""
ENTRY_POINTS = """\
[qbench.methods]
leaks = leaky:Leaks
refuses = leaky:Refuses

[qbench.metrics]
leaky-metric = leaky:LeakyMetric
"""


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def files_that_tell(folder: Path) -> list[str]:
    """Return what in a folder holds a piece of a secret, by name or content."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        texts = [each.encode(code) for each in PIECES for code in ("utf-8", "utf-16-le")]
        if any(each in content for each in texts) or any(each in path.name for each in PIECES):
            found.append(str(path))
    return found


def test_a_run_whose_plugins_tell_everything(
    install: Callable[..., None],
    micro_suite: Callable[..., Path],
    qbench: Callable[..., Any],
    workplace: Path,
    secrets: None,
):
    install("leaky", ENTRY_POINTS, {"leaky.py": LEAKS})
    micro_suite(methods=["round", "leaks", "refuses"], metrics=["micro-distance", "mse-to-fp", "leaky-metric"])
    told = [
        qbench(*words)
        for words in (
            ("plan", "micro.yaml"),
            ("run", "micro.yaml"),
            ("run", "micro.yaml", "--json"),
            ("check", "micro.yaml"),
            ("leaderboard", "results"),
            ("store", "ls", "--json"),
            ("diff", "results", "results", "--json"),
            ("doctor",),
        )
    ]
    assert told[1].code == 1
    reasons = [json.loads(path.read_text())["reason"] for path in (workplace / "results").glob("*/records/*.json")]
    assert sum("$HF_TOKEN" in (reason or "") for reason in reasons) >= 4
    assert list((workplace / "store" / "failures").glob("*.txt"))
    assert files_that_tell(workplace) == []
    for answer in told:
        assert not any(piece in answer.out + answer.err for piece in PIECES)


def test_the_search_finds_them(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x S3CR3T x")
    (tmp_path / "on head.internal.example").mkdir()
    assert len(files_that_tell(tmp_path)) == 2


def test_the_sentence_of_a_refusal(qbench: Callable[..., Any], workplace: Path, secrets: None):
    answer = qbench("plan", f"{SECRETS['HF_TOKEN']}.yaml")
    assert answer.err.startswith("qbench: $HF_TOKEN.yaml: no such file")
    answer = qbench("score", "https://user:S3CR3T@example.org/images", "--metrics", "mse-to-fp")
    assert "S3CR3T" not in answer.err


@pytest.mark.slow
def test_an_exported_folder(qbench: Callable[..., Any], workplace: Path, secrets: None):
    (workplace / "small.yaml").write_text(
        "name: small\nworkloads: [tiny-ddim]\n"
        "methods: [{name: linear, settings: {calibration: {steps: 2, per_step: 2}}}]\n"
        "bits: [W4A8]\nmetrics: [mse-to-fp]\nsamples: 2\nsteps: 2\n"
    )
    assert qbench("run", "small.yaml").code == 0
    done = qbench("export", "small/tiny-ddim.linear.W4A8.s0", "--suite", "small.yaml", "--to", "cell")
    assert done.code == 0
    assert (workplace / "cell" / "README.md").is_file()
    assert files_that_tell(workplace) == []


def test_workers_of_a_cluster_are_not_given_them(secrets: None, monkeypatch: pytest.MonkeyPatch):
    """What a worker is started with stands in Ray's logs; where files lie it must know."""
    from qbench.execution.ray_cluster import runtime_env

    monkeypatch.setenv("HF_HOME", "/data/hub")
    given = runtime_env(1)["env_vars"]
    assert given["HF_HOME"] == "/data/hub"
    assert not any("S3CR3T" in value for value in given.values())


def test_where_a_run_was_started_is_in_no_record(finished_suite: Path, workplace: Path, qbench: Callable[..., Any]):
    import getpass
    import socket

    shutil.rmtree(workplace / "results")
    qbench("run", "micro.yaml")
    host = socket.gethostname()
    for path in (workplace / "results").rglob("*"):
        if path.is_file():
            text = path.read_bytes().decode("utf-8", "replace")
            assert str(workplace) not in text
            assert len(host) < 6 or host not in text
            assert len(getpass.getuser()) < 6 or getpass.getuser() not in text
