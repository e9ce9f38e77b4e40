"""Whatever is wrong is told in one sentence that names the place, and nothing that was there is lost."""

import datetime
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

Qbench = Callable[..., Any]
MicroSuite = Callable[..., Path]
GOOD = yaml.safe_dump(
    {
        "name": "micro",
        "workloads": ["micro"],
        "methods": ["round"],
        "bits": ["W4A32"],
        "metrics": ["micro-distance"],
        "samples": 12,
    },
    sort_keys=False,
)


@pytest.fixture(autouse=True)
def _nothing_is_lost(finished_suite: Path, workplace: Path) -> Iterator[None]:
    """A complete store and complete results, which every test leaves as they are."""

    def everything() -> dict[Path, bytes]:
        files = [path for name in ("store", "results") for path in (workplace / name).rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files if path.parent.name != "locks"}

    before = everything()
    yield
    assert everything() == before


@pytest.fixture
def refused(qbench: Qbench) -> Callable[..., str]:
    """Return a function that runs a command that must be refused, and returns its one sentence."""

    def refuse(*words: object) -> str:
        begun = time.process_time()
        answer = qbench(*words)
        assert time.process_time() - begun < 2
        assert answer.code == 1, answer
        assert "Traceback" not in answer.err
        assert answer.err.endswith("\n")
        (line,) = answer.err.splitlines()
        assert line.startswith("qbench: ")
        assert len(line) < 1000
        assert answer.out == ""
        return line.removeprefix("qbench: ")

    return refuse


def bomb(levels: int = 9, width: int = 9) -> str:
    """Billion laughs: every level repeats the one before."""
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, levels)]
    return "\n".join(lines) + "\n"


def merge_bomb(levels: int = 9, width: int = 9) -> str:
    lines = ["a0: &a0 {k0: 1}"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} {{<<: [{aliases}], k{level}: 1}}")
    return "\n".join(lines) + "\n"


NO_SUITES = {
    "empty": ("", "is empty"),
    "comments only": ("# nothing\n", "is empty"),
    "null": ("null\n", "is empty"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "not a text file"),
    "control characters": (b"name: \x00\x01\n", "not valid YAML"),
    "utf-16": ("name: micro".encode("utf-16"), "not a text file"),
    "broken": ("name: [\n", r":\d+: not valid YAML"),
    "tab": ("name: micro\n\tbits: [W4A8]\n", ":2: not valid YAML"),
    "list at the top": ("- name: micro\n", ":1: a suite is made of keys with values"),
    "text at the top": ("just words\n", ":1: a suite is made of keys with values"),
    "two documents": ("name: a\n---\nname: b\n", r":\d+: not valid YAML"),
    "key said twice": (GOOD + "samples: 13\n", ":11: .*'samples' is there twice"),
    "key said twice inside": (GOOD + "standin: {a: 1, a: 2}\n", ":11: .*'a' is there twice"),
    "alias bomb": (bomb() + GOOD, r":\d+: more than 20,000 values"),
    "merge bomb": (merge_bomb() + GOOD, r":\d+: "),
    "alias that contains itself": ("a: &a [*a]\n" + GOOD, ":1: the alias \\*a contains itself"),
    "alias that contains itself under a known name": (GOOD + "x: &a 1\ny: &a [*a]\n", ":12: "),
    "alias of nothing": ("name: *nobody\n", ":1: not valid YAML"),
    "10,000 brackets": ("a: " + "[" * 10_000 + "]" * 10_000, ":1: nested deeper"),
    "10,000 braces": ("{a: " * 10_000 + "1" + "}" * 10_000, ":1: nested deeper"),
    "10,000 dashes": ("a:\n" + "- " * 10_000 + "x\n", ":2: nested deeper"),
    "10,000 open brackets": ("[" * 10_000, ":1: nested deeper"),
    "too large": (GOOD + "# " + "x" * 1_000_000, "larger than"),
    "python object": (GOOD + "x: !!python/object/apply:os.system ['touch pwned']\n", ":11: not valid YAML"),
    "unknown tag": (GOOD + "x: !include other.yaml\n", ":11: not valid YAML"),
    "no such truth": (GOOD + "title: !!bool maybe\n", "micro.yaml.*not valid YAML"),
    "no such number": (GOOD.replace("samples: 12", "samples: !!int ''"), "micro.yaml.*not valid YAML"),
    "no such float": (GOOD.replace("samples: 12", "samples: !!float ''"), "micro.yaml.*not valid YAML"),
    "no such time": (GOOD + "title: !!timestamp noon\n", "micro.yaml.*not valid YAML"),
    "no such day": (GOOD + "title: 2024-99-99\n", "micro.yaml"),
    "not base64": (GOOD + "title: !!binary a\n", "micro.yaml"),
    "10,000 digits": (GOOD.replace("samples: 12", "samples: 1" + "0" * 10_000), "micro.yaml"),
    "list as key": (GOOD + "? [1]\n: 2\n", ":11: not valid YAML"),
    "number as key": (GOOD + "7: 8\n", "micro.yaml:"),
    "merge with a number": (GOOD + "<<: 5\n", ":11: not valid YAML"),
}


@pytest.mark.parametrize("content", [each for each, _ in NO_SUITES.values()], ids=NO_SUITES)
def test_a_file_that_is_no_suite(refused: Callable[..., str], workplace: Path, content: str | bytes, request: Any):
    (workplace / "micro.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    words = refused("run", "micro.yaml")
    expected = NO_SUITES[request.node.callspec.id][1]
    assert words.startswith("micro.yaml")
    assert re.search(expected, words), words
    assert not (workplace / "pwned").exists()


WRONG_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"sample": 5}, r"unknown key 'sample': did you mean 'samples'\?"),
    "unknown key of an entry": ({"methods": [{"name": "round", "presett": "x"}]}, "did you mean 'preset'"),
    "unknown setting": ({"methods": [{"name": "round", "settings": {"shar": 1}}]}, "did you mean 'share'"),
    "unknown nested setting": (
        {"methods": [{"name": "round", "settings": {"calibration": {"per_stp": 1}}}]},
        "did you mean 'per_step'",
    ),
    "unknown kind of calibration": (
        {"methods": [{"name": "linear", "settings": {"calibration": {"kind": "normal-stps"}}}]},
        r"micro.yaml:\d+ .*calibration.kind.*unknown kind 'normal-stps': did you mean 'normal-steps'",
    ),
    "unknown setting of another kind of calibration": (
        {"methods": [{"name": "linear", "settings": {"calibration": {"kind": "normal-steps", "maen": 0.5}}}]},
        r"micro.yaml:\d+ .*settings.calibration.maen\): unknown key 'maen': did you mean 'mean'",
    ),
    "a setting of the default kind with another kind": (
        {"methods": [{"name": "linear", "settings": {"calibration": {"kind": "single-step", "per_step": 5}}}]},
        "unknown key 'per_step': did you mean 'step'",
    ),
    "unknown sampler setting": ({"workloads": [{"name": "micro", "sampler": {"etta": 1}}]}, "did you mean 'eta'"),
    "unknown setting of a metric": ({"metrics": [{"name": "micro-contrast", "settings": {"p": 1}}]}, "power"),
    "unknown workload": ({"workloads": ["mikro"]}, "unknown workload 'mikro': did you mean 'micro'"),
    "unknown method": ({"methods": ["rond"]}, "unknown method 'rond': did you mean 'round'"),
    "unknown metric": ({"metrics": ["mse-to-pf"]}, "unknown metric 'mse-to-pf': did you mean 'mse-to-fp'"),
    "unknown preset": ({"methods": [{"name": "round", "preset": "thight"}]}, "did you mean 'tight'"),
    "a method that cannot be imported": ({"methods": ["broken-import"]}, "microplugins.*OSError: libmicro.so.1"),
    "W44A8": ({"bits": ["W44A8"]}, "'W44A8': 44 weight bits are not offered: use one of 2, 3, 4"),
    "W4A1": ({"bits": ["W4A1"]}, "1 activation bits are not offered"),
    "W4": ({"bits": ["W4"]}, "'W4' is no bit-width: write .* W4A8"),
    "lower case": ({"bits": ["w4a8"]}, "'w4a8' is no bit-width"),
    "a number for bits": ({"bits": [4]}, "bits.*found 4"),
    "bits as text": ({"bits": "W4A8"}, "bits"),
    "full precision": ({"bits": ["W32A32"]}, "by itself: leave it out"),
    "bits that a method refuses": ({"methods": ["four-only"], "bits": ["W8A32"]}, "four-only"),
    "negative samples": ({"samples": -1}, r"samples.*found -1"),
    "no samples": ({"samples": 0}, r"samples.*found 0"),
    "samples as text": ({"samples": "many"}, "samples.*found 'many'"),
    "half a sample": ({"samples": 1.5}, "samples.*found 1.5"),
    "samples as truth": ({"samples": True}, "samples.*found True"),
    "very many samples": ({"samples": 10**12}, "samples"),
    "no steps": ({"steps": 0}, "steps.*found 0"),
    "more steps than were trained": ({"steps": 41}, "41 steps are more than the 40"),
    "no methods": ({"methods": []}, "name at least one of 'methods'"),
    "methods left out": ({"methods": None}, "name at least one of 'methods'"),
    "no bits": ({"bits": []}, "name at least one of 'bits'"),
    "no metrics": ({"metrics": []}, "name at least one of 'metrics'"),
    "no workloads": ({"workloads": []}, "name at least one of 'workloads'"),
    "the same method twice": ({"methods": ["round", "round"]}, "'round' is there twice.*'as'"),
    "the same workload twice": ({"workloads": ["micro", "micro"]}, "'micro' is there twice.*'as'"),
    "the same bits twice": ({"bits": ["W4A8", "W4A8"]}, "'W4A8' is there twice"),
    "the same seed twice": ({"seeds": [1, 1]}, "'1' is there twice"),
    "the same metric twice": ({"metrics": ["mse-to-fp", "mse-to-fp"]}, "'mse-to-fp' is there twice"),
    "boundary_bits 9": ({"boundary_bits": 9}, "boundary_bits.*9 bits are not offered: use one of 2, 3"),
    "boundary_bits 32": ({"boundary_bits": 32}, "32 bits are not offered"),
    "boundary_bits as truth": ({"boundary_bits": True}, "boundary_bits"),
    "no seeds": ({"seeds": []}, "seeds"),
    "negative seed": ({"seeds": [-1]}, "seeds.*found -1"),
    "seed as text": ({"seeds": ["one"]}, "seeds.*found 'one'"),
    "very large seed": ({"seeds": [2**64]}, "seeds"),
    "a name that leaves the folder": ({"name": "../micro"}, r"name.*found '\.\./micro'"),
    "a name with a slash": ({"name": "a/b"}, "name"),
    "a hidden name": ({"name": ".micro"}, "name"),
    "two dots for a name": ({"name": ".."}, "name"),
    "no name": ({"name": ""}, "name"),
    "name left out": ({"name": None}, "'name' is missing"),
    "a number for a name": ({"name": 7}, "name.*found 7"),
    "a very long name": ({"name": "x" * 300}, "name"),
    "a label that leaves the folder": ({"methods": [{"name": "round", "as": "../x"}]}, "as"),
    "a label with a space": ({"workloads": [{"name": "micro", "as": "x y"}]}, "as"),
    "an entry without a name": ({"methods": [{"preset": "tight"}]}, "'name' is missing"),
    "a number for a method": ({"methods": [7]}, "methods"),
    "settings that are a list": ({"methods": [{"name": "round", "settings": [1]}]}, "settings"),
    "a setting that is text": ({"methods": [{"name": "round", "settings": {"share": "big"}}]}, "share.*found 'big'"),
    "a setting out of range": ({"methods": [{"name": "round", "settings": {"share": 2}}]}, "share.*found 2"),
    "a setting that is not a number": (
        {"methods": [{"name": "round", "settings": {"share": float("nan")}}]},
        "share.*found nan",
    ),
    "a setting without end": ({"workloads": [{"name": "micro", "settings": {"gain": float("inf")}}]}, "gain"),
    "a sampler that is a number": ({"workloads": [{"name": "micro", "settings": {"sampler": 5}}]}, "sampler"),
    "a sampler that is nothing": ({"workloads": [{"name": "micro", "settings": {"sampler": None}}]}, "sampler"),
    "a sampler that nobody knows": ({"workloads": [{"name": "micro", "sampler": {"name": "heun"}}]}, "'ddim'"),
    "a date for a title": ({"title": datetime.date(2024, 1, 1)}, "title"),
    "a title that is not text": ({"title": "\ud800"}, "micro.yaml"),
    "a missing include": ({"include": ["nowhere.yaml"]}, "include.*nowhere.yaml"),
    "an include that is no name": ({"include": [7]}, "include"),
    "itself": ({"include": ["micro.yaml"]}, r"circle \(micro.yaml -> micro.yaml\)"),
    "everything excluded": ({"exclude": [{"method": "round"}]}, "no cell is left"),
    "an exclusion by another key": ({"exclude": [{"methods": "round"}]}, "did you mean 'method'"),
}


@pytest.mark.parametrize("changes", [each for each, _ in WRONG_VALUES.values()], ids=WRONG_VALUES)
def test_a_wrong_value(refused: Callable[..., str], micro_suite: MicroSuite, changes: dict[str, Any], request: Any):
    micro_suite(**changes)
    words = refused("run", "micro.yaml")
    assert words.startswith("micro.yaml:"), words
    assert re.search(WRONG_VALUES[request.node.callspec.id][1], words), words


def line_of(path: Path, start: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if line.startswith(start))


@pytest.mark.parametrize("command", ["run", "plan", "check"])
def test_every_command_that_takes_a_suite_says_the_same(
    refused: Callable[..., str], micro_suite: MicroSuite, command: str
):
    line = line_of(micro_suite(samples=-1), "samples")
    assert refused(command, "micro.yaml").startswith(f"micro.yaml:{line} (samples): ")


def test_the_line_is_that_of_the_value(refused: Callable[..., str], workplace: Path):
    (workplace / "micro.yaml").write_text(
        "name: micro\nworkloads: [micro]\nmethods:\n  - linear\n\n  - name: round\n    settings:\n      share: 7\n"
        "bits: [W4A8]\nmetrics: [mse-to-fp]\n"
    )
    assert refused("run", "micro.yaml").startswith("micro.yaml:8 (methods entry 2.settings.share): ")


def test_a_metric_that_does_not_fit_the_workload(refused: Callable[..., str], micro_suite: MicroSuite):
    micro_suite(metrics=["mse-to-fp", "fd-fashion"])
    words = refused("run", "micro.yaml")
    assert re.match("micro.yaml: fd-fashion cannot be computed on micro: ", words), words


class TestSuiteName:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("nowhere.yaml", "nowhere.yaml: no such file; installed suites are .*smoke"),
            ("some/where/nowhere.yaml", "no such file"),
            ("smok", "no suite 'smok' is installed: did you mean 'smoke'"),
            ("", ""),
            (".", "is a folder"),
            ("results", "results: is a folder, not a suite file"),
            ("x" * 300, "x"),
            ("x" * 300 + ".yaml", "x"),
            ("micro.yaml/more", "micro.yaml/more"),
        ],
    )  # fmt: skip
    def test_that_names_no_suite(self, refused: Callable[..., str], name: str, expected: str):
        assert re.search(expected, refused("run", name))

    def test_of_an_include_that_is_too_long(self, refused: Callable[..., str], micro_suite: MicroSuite):
        micro_suite(include=["x" * 300])
        assert refused("run", "micro.yaml").startswith("micro.yaml:")

    def test_that_nobody_may_read(self, refused: Callable[..., str], workplace: Path):
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        (workplace / "micro.yaml").chmod(0)
        assert "micro.yaml: cannot be read (Permission denied)" in refused("run", "micro.yaml")


def test_suites_that_include_each_other(refused: Callable[..., str], micro_suite: MicroSuite):
    micro_suite("a.yaml", name="a", include=["b.yaml"])
    micro_suite("b.yaml", name="b", include=["a.yaml"])
    assert "circle (a.yaml -> b.yaml -> a.yaml)" in refused("run", "a.yaml")


def test_an_include_that_is_wrong_is_blamed_and_not_the_file_that_includes_it(
    refused: Callable[..., str], micro_suite: MicroSuite
):
    line = line_of(micro_suite("other.yaml", name="other", samples=-1), "samples")
    micro_suite(include=["other.yaml"])
    assert refused("run", "micro.yaml").startswith(f"other.yaml:{line} (samples): ")


class TestPlaces:
    @pytest.mark.parametrize("option", ["--store", "--results"])
    @pytest.mark.parametrize("path", ["file", "file/below", "loop", "loop/below"])
    def test_that_cannot_be_written(self, refused: Callable[..., str], workplace: Path, option: str, path: str):
        (workplace / "file").write_text("kept")
        (workplace / "loop").symlink_to("loop")
        words = refused("run", "micro.yaml", option, path)
        assert path in words
        assert "cannot be written" in words
        assert option in words
        assert (workplace / "file").read_text() == "kept"

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
    @pytest.mark.parametrize("option", ["--store", "--results"])
    def test_where_the_system_has_no_room_for_files(self, refused: Callable[..., str], option: str):
        words = refused("run", "micro.yaml", option, "/proc/qbench")
        assert "/proc/qbench" in words
        assert "cannot be written" in words

    def test_a_store_from_the_environment(
        self, refused: Callable[..., str], workplace: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("QBENCH_STORE", "micro.yaml/store")
        assert "QBENCH_STORE" in refused("run", "micro.yaml")

    @pytest.mark.parametrize("words", [("ls",), ("gc",), ("verify",)])
    def test_store_commands(self, refused: Callable[..., str], words: tuple[str, ...]):
        assert "micro.yaml/store cannot be written" in refused("store", *words, "--store", "micro.yaml/store")

    @pytest.mark.parametrize("path", ["nowhere", "micro.yaml", "store"])
    def test_a_leaderboard_of_no_results(self, refused: Callable[..., str], path: str):
        assert refused("leaderboard", path).startswith(f"{path}: ")


LONG = "x" * 5000
"""No file system has such a name."""


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "micro.yaml", "--store", LONG),
        ("plan", LONG),
        ("run", "micro.yaml", "--store", LONG),
        ("run", "micro.yaml", "--results", LONG),
        ("check", "micro.yaml", "--results", LONG),
        ("leaderboard", LONG),
        ("leaderboard", "results", "--collect", "--store", LONG),
        ("diff", LONG, "results"),
        ("diff", "results", "results", "--store", LONG),
        ("score", LONG, "--metrics", "micro-contrast"),
        ("score", "results", "--metrics", "micro-contrast", "--reference", LONG),
        ("export", LONG, "--to", "out"),
        ("export", "a/b", "--to", LONG),
        ("methods", "new", "my-method", "--to", LONG),
        ("store", "ls", "--store", LONG),
    ],
    ids=lambda words: " ".join(words).replace(LONG, "LONG"),
)
def test_a_name_that_is_too_long_for_any_place_is_one_sentence(
    qbench: Qbench, micro_suite: MicroSuite, workplace: Path, words: tuple[str, ...]
):
    micro_suite()
    answer = qbench(*words)
    assert answer.code == (2 if words[0] == "diff" else 1), answer.err
    assert answer.err.startswith("qbench: ")
    assert answer.err.count("\n") == 1
    assert "Traceback" not in answer.err


class TestDevice:
    @pytest.mark.parametrize("name", ["nonsense", "cuda:0,cuda:1", "cuda:99", "cpu:7", "meta", "", "cuda:-1"])
    def test_that_is_not_there(self, refused: Callable[..., str], micro_suite: MicroSuite, name: str):
        words = refused("run", micro_suite(samples=13), "--device", name)
        assert words.startswith(f"--device {name}: ")


class TestOptions:
    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (("--only", "method=rond"), "no cell has method=rond: did you mean 'round'"),
            (("--only", "bits=W5A8"), "no cell has bits=W5A8"),
            (("--only", "seed=7"), "no cell has seed=7"),
            (("--set", "sample=5"), "--set sample: .*did you mean 'samples'"),
            (("--set", "samples=-1"), "--set samples: .*found -1"),
            (("--set", "samples=[1"), "'\\[1' is not a value in YAML"),
            (("--set", "title=!!bool maybe"), "!!bool maybe"),
            (("--set", "methods=[rond]"), "unknown method 'rond': did you mean 'round'"),
            (("--set", "bits=[W44A8]"), "44 weight bits"),
            (("--set", "samples=" + "[" * 10_000), "nested deeper"),
            (("--set", "name=../x"), "--set name: "),
        ],
    )
    def test_with_a_wrong_value(self, refused: Callable[..., str], words: tuple[str, ...], expected: str):
        assert re.search(expected, refused("run", "micro.yaml", *words))

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (("run",), "SUITE"),
            (("run", "micro.yaml", "another.yaml"), "another.yaml"),
            (("run", "micro.yaml", "--bogus"), "--bogus"),
            (("run", "micro.yaml", "--only", "method"), "KEY=VALUE"),
            (("run", "micro.yaml", "--only", "method="), "KEY=VALUE"),
            (("run", "micro.yaml", "--only", "=round"), "KEY=VALUE"),
            (("run", "micro.yaml", "--only", "samples=5"), "samples"),
            (("run", "micro.yaml", "--set", "samples"), "KEY=VALUE"),
            (("run", "micro.yaml", "--set", "samples="), "KEY=VALUE"),
            (("run", "micro.yaml", "--set", "samples=5", "--set", "samples=6"), "given twice"),
            (("run", "micro.yaml", "--store"), "--store"),
            (("plan", "micro.yaml", "--bogus"), "--bogus"),
            (("bogus",), "bogus"),
            (("methods", "bogus"), "bogus"),
            (("methods", "show"), "NAME"),
            (("store", "gc", "--older-than", "-1"), "--older-than"),
            (("store", "gc", "--older-than", "soon"), "--older-than"),
            (("store", "gc", "--older-than", "nan"), "--older-than"),
            (("diff", "a", "b", "--tolerance", "nan"), "--tolerance"),
            (("run", "micro.yaml", "--cache-gb", "nan"), "--cache-gb"),
        ],
    )
    def test_of_a_wrong_form_are_wrong_usage(self, qbench: Qbench, words: tuple[str, ...], expected: str):
        answer = qbench(*words)
        assert answer.code == 2
        assert expected in answer.err
        assert "Traceback" not in answer.err
        assert answer.out == ""


def test_the_refusal_of_a_real_process_is_one_line_too(workplace: Path):
    command = [sys.executable, "-m", "qbench", "run", "nowhere.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"qbench: nowhere\.yaml: no such file[^\n]*\n", done.stderr)
