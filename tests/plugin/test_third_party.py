"""A third party's package, installed with pip: what works of it works, and the rest harms nobody else."""

import json
import subprocess
from collections.abc import Callable

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = ["--set", "samples=12", "--set", "bits=[W4A8]", "--set", "metrics=[mse-to-fp]", "--set", "steps=4"]


def test_the_list_has_all_of_it(run_there: Run) -> None:
    done = run_there("methods", "list")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["third-good", "qbench-third-party", "0.3.0"] in rows
    assert ["third-broken", "qbench-third-party", "0.3.0"] in rows
    linear = [" ".join(row) for row in rows if row[0] == "linear"]
    assert len(linear) == 2
    assert all("offered twice" in row for row in linear)
    entries = json.loads(run_there("methods", "list", "--json").stdout)
    assert {entry["package"] for entry in entries} >= {"qbench", "qbench-third-party"}


def test_what_is_broken_says_why(run_there: Run) -> None:
    done = run_there("methods", "show", "third-broken")
    assert done.returncode == 1
    assert done.stderr == (
        "qbench: the method 'third-broken' of package qbench-third-party cannot be imported "
        "(OSError: libcudart.so.99: cannot open shared object file)\n"
    )


def test_a_suite_with_the_broken_one_is_refused_in_one_sentence(run_there: Run) -> None:
    done = run_there("run", "smoke", "--set", "methods=[mse, third-broken]", *SMALL)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("qbench: --set methods entry 2: the method 'third-broken' of package qbench-third-party")
    assert "libcudart.so.99" in line


def test_a_name_that_two_offer_names_both(run_there: Run) -> None:
    done = run_there("plan", "smoke")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert "is offered by qbench (qbench_methods.linear:Linear) and qbench-third-party (third_party:Good)" in line
    assert line.endswith("uninstall all but one of them")


def test_a_suite_with_the_good_one_runs(run_there: Run) -> None:
    done = run_there("run", "smoke", "--set", "methods=[third-good]", *SMALL)
    assert done.returncode == 0, done.stderr
    assert any(line.split()[:2] == ["third-good", "W4A8"] for line in done.stdout.splitlines())


def test_all_others_are_as_they_were(run_there: Run) -> None:
    assert run_there("methods", "show", "mse").returncode == 0
    done = run_there("plan", "smoke", "--set", "methods=[mse]")
    assert done.returncode == 0, done.stderr
