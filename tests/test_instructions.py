"""What is said of a processor's vector instructions."""

import platform
from pathlib import Path

import pytest
import torch

from qbench.instructions import LIMIT, instructions

CAPABILITY = torch.backends.cpu.get_cpu_capability()


@pytest.fixture(autouse=True)
def _on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delenv(LIMIT, raising=False)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("sse avx2", "no VNNI"),
        ("avx2 avx_vnni", "VNNI"),
        ("avx512f avx512_vnni amx_int8", "VNNI, AMX"),
        ("", "VNNI not known"),
    ],
)
def test_flags_tell_what_integers_are_computed_with(tmp_path: Path, flags: str, words: str):
    file = tmp_path / "cpuinfo"
    file.write_text(f"model name\t: X\nflags\t\t: {flags}\n")
    assert instructions(file) == f"{CAPABILITY}, {words}"


def test_a_system_without_flags_says_that_it_is_not_known(tmp_path: Path):
    assert instructions(tmp_path / "nowhere") == f"{CAPABILITY}, VNNI not known"


def test_other_processors_have_no_such_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert instructions(tmp_path / "nowhere") == CAPABILITY


def test_a_limit_on_one_dnn_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(LIMIT, "AVX2")
    assert instructions(tmp_path / "nowhere").endswith(f", {LIMIT}=AVX2")
