"""`qbench methods new` and its siblings write packages that are clean, and refuse what would not be."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import PluginError
from qbench.plugins import METHODS, METRICS, WORKLOADS, Catalogue
from qbench.testing import new_package
from qbench.testing.new_package import write_package

ROOT = Path(__file__).parents[2]
KINDS = {"method": METHODS, "workload": WORKLOADS, "metric": METRICS}
Qbench = Callable[..., Any]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["q9", "a-name-that-is-as-long-as-may-be"])
def test_what_is_written_has_its_name_everywhere_and_is_clean(kind: str, name: str, tmp_path: Path) -> None:
    package = write_package(KINDS[kind], name, tmp_path / "package")
    written = [path.relative_to(package.folder) for path in package.folder.rglob("*") if path.is_file()]
    assert sorted(written) == sorted(package.files)
    for path in package.files:
        text = (package.folder / path).read_text(encoding="utf-8")
        assert not any(old in f"{path}{text}" for old in (f"my-{kind}", f"my_{kind}", f"My{kind.capitalize()}"))
    module = package.folder / f"{name.replace('-', '_')}.py"
    assert module.is_file()
    if kind == "method":
        assert len(module.read_text().splitlines()) < 60
    style = ["--extend-select", "E,F,B,UP,D,SIM,RUF,PT,C4,PERF", "--ignore", "D107"]
    for words in (["check", *style, "--config", "lint.pydocstyle.convention = 'google'"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *words, "--no-cache", "."]
        done = subprocess.run(ruff, cwd=package.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_what_is_written_has_types(tmp_path: Path) -> None:
    for kind, catalogue in KINDS.items():
        write_package(catalogue, f"typed-{kind}", tmp_path / kind)
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), "."],
            cwd=tmp_path / kind,
            env={**os.environ, "MYPYPATH": str(tmp_path / kind)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My_Method", "such as 'my-method'"),
        ("../x", "such as 'x'"),
        ("a/b", "such as 'a-b'"),
        ("a--b", "such as 'a-b'"),
        ("-x", "such as 'x'"),
        ("9lives", "such as 'my-method'"),
        ("", "such as 'my-method'"),
        ("é", "such as 'my-method'"),
        ("a\0b", "such as 'a-b'"),
        ("x" * 10_000, "at most 32 small letters"),
        ("class", "that Python or an installed package has"),
        ("random", "that Python or an installed package has"),
        ("torch", "that Python or an installed package has"),
        ("qbench", "that Python or an installed package has"),
        ("linear", "is there already, from qbench"),
        ("settings", "would hide Settings"),
        ("uniform-steps", "would hide UniformSteps"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError) as caught:
        write_package(METHODS, name, tmp_path / "package")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(PluginError, match="is not empty: name a new folder with --to"):
        write_package(METHODS, "mine", tmp_path / "full")
    with pytest.raises(PluginError, match="is a file: name a new folder with --to"):
        write_package(METHODS, "mine", tmp_path / "full" / "file")
    with pytest.raises(PluginError, match="cannot be written"):
        write_package(METHODS, "mine", tmp_path / "full" / "file" / "below")
    with pytest.raises(PluginError, match="cannot be written"):
        write_package(METHODS, "mine", tmp_path / "a\0b")
    assert (tmp_path / "full" / "file").read_text() == "mine"
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "file"]


@pytest.mark.parametrize("exists", [False, True])
def test_nothing_half_written_is_left(exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    if exists:
        folder.mkdir()
    written: list[Path] = []
    original = Path.write_text

    def full(path: Path, *arguments: Any, **keywords: Any) -> int:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return original(path, *arguments, **keywords)

    monkeypatch.setattr(new_package.Path, "write_text", full)
    with pytest.raises(PluginError, match="No space left on device"):
        write_package(METHODS, "mine", folder)
    assert [path.name for path in tmp_path.rglob("*")] == (["mine"] if exists else [])


def test_an_empty_folder_may_be_the_one_it_is_run_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_package(METHODS, "mine", Path("."))
    assert (tmp_path / "mine.py").is_file()


def test_the_command_line_writes_and_tells(qbench: Qbench, workplace: Path) -> None:
    answer = qbench("methods", "new", "mine")
    assert answer.code == 0
    assert "mine/mine.py" in answer.out
    assert "pip install -e mine" in answer.out
    told = qbench("metrics", "new", "other", "--to", "elsewhere/other", "--json").json
    assert told["folder"] == "elsewhere/other"
    assert all((workplace / told["folder"] / path).is_file() for path in told["files"])
    refused = qbench("methods", "new", "mine")
    assert refused.code == 1
    assert refused.err == "qbench: mine is not empty: name a new folder with --to\n"


@pytest.mark.parametrize("catalogue", KINDS.values(), ids=KINDS)
def test_templates_offer_what_their_files_hold(catalogue: Catalogue, tmp_path: Path) -> None:
    import tomllib

    package = write_package(catalogue, "mine", tmp_path / "mine")
    project = tomllib.loads((package.folder / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"] == {catalogue.group: {"mine": "mine:Mine"}}
    for module in project["tool"]["setuptools"]["py-modules"]:
        assert (package.folder / f"{module}.py").is_file()
    assert "class Mine(" in (package.folder / "mine.py").read_text(encoding="utf-8")
