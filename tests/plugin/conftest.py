"""A virtual environment that sees what is installed here, and has a third party's package installed for real."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

import qbench
import qbench_methods

PACKAGE = Path(__file__).parent / "package"
PATIENCE_SECONDS = 300


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the environment."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    inside = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    # Paths of .pth files are not looked for further ones, so what this process found is named one by one.
    sources = {str(Path(found.__path__[0]).parent) for found in (qbench, qbench_methods)}
    seen = [*sources, *(each for each in sys.path if Path(each).name in ("site-packages", "dist-packages"))]
    seen.append(sysconfig.get_path("purelib"))
    (Path(inside.stdout.strip()) / "outer.pth").write_text("\n".join(dict.fromkeys(seen)) + "\n")
    return folder


@pytest.fixture(scope="session")
def install_package(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Return a function that installs a package's folder with pip, from nothing but what is here."""

    def install(source: Path) -> None:
        copy = tmp_path_factory.mktemp("sources") / source.name
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))  # setuptools writes into it
        words = ["--python", str(environment / "bin" / "python"), "install", "--no-index", "--no-build-isolation"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words, "--no-deps", "--disable-pip-version-check", "-q", str(copy)],
            capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    return install


@pytest.fixture(scope="session")
def third_party(environment: Path, install_package: Callable[[Path], None]) -> Path:
    """The environment with the third party's package in it."""
    install_package(PACKAGE)
    return environment


@pytest.fixture
def run_there(third_party: Path, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Return a function that runs qbench in the environment, in an empty folder."""

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [third_party / "bin" / "python", "-m", "qbench", *words],
            cwd=tmp_path,
            env={**os.environ, "QBENCH_STORE": str(tmp_path / "store"), "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    return run
