from dataclasses import replace
from pathlib import Path

import pytest

from qbench.errors import SuiteError
from qbench.yaml_file import MAX_BYTES, MAX_DEPTH, MAX_NODES, YamlFile, parse_value, read_yaml


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "suite.yaml"


def read(path: Path, text: str) -> YamlFile:
    path.write_text(text, encoding="utf-8")
    return read_yaml(path)


def test_plain_data_is_read(path: Path) -> None:
    found = read(path, "name: ünï\nbits: [W4A8, W4A32]\nsamples: 500\neta: 0.5\nnothing:\n")
    assert found.data == {"name": "ünï", "bits": ["W4A8", "W4A32"], "samples": 500, "eta": 0.5, "nothing": None}


def test_an_empty_file_holds_nothing(path: Path) -> None:
    found = read(path, "# only a comment\n")
    assert found.data is None
    assert found.place(("name",)) == f"{path} (name)"


def test_places_have_file_line_and_key(path: Path) -> None:
    found = read(path, "name: x\nmethods:\n  - linear\n  - name: q\n    settings:\n      rounds: 1\n")
    assert found.place(()) == f"{path}:1"
    assert found.place(("methods", 1, "settings", "rounds")) == f"{path}:6 (methods entry 2.settings.rounds)"
    assert found.place(("methods", 0)) == f"{path}:3 (methods entry 1)"


def test_the_place_of_what_is_not_there_is_that_of_its_owner(path: Path) -> None:
    found = read(path, "name: x\nsampler:\n  steps: 1\n")
    assert found.place(("sampler", "eta")) == f"{path}:3 (sampler.eta)"


def test_the_place_of_what_the_command_line_gave_is_its_option(path: Path) -> None:
    found = replace(read(path, "name: x\nsamples: 1\n"), overrides=frozenset({"samples"}))
    assert found.place(("samples",)) == "--set samples"
    assert found.place(("name",)) == f"{path}:1 (name)"


def test_anchors_and_merges_are_read(path: Path) -> None:
    found = read(path, "base: &base {steps: 20, eta: 0}\nmine:\n  <<: *base\n  eta: 1\nyours: *base\n")
    assert found.data["mine"] == {"steps": 20, "eta": 1}
    assert found.data["yours"] == {"steps": 20, "eta": 0}


def test_a_merge_of_a_merge_that_overrides_is_read(path: Path) -> None:
    found = read(path, "deep: {base: &b {<<: &a {k: 1}, k: 2}}\nmine: {<<: *b, k: 3}\n")
    assert found.data == {"deep": {"base": {"k": 2}}, "mine": {"k": 3}}


def test_keys_that_only_look_alike_are_two_keys(path: Path) -> None:
    assert read(path, '{1: number, "1": text}').data == {1: "number", "1": "text"}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("name: x\nname: y\n", 2, "the key 'name' is there twice"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", 4, "the key 'b' is there twice"),
        ("name: [1, 2\nother: 3\n", 2, "not valid YAML"),
        ("name: x\n\tother: 3\n", 2, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: *nobody\n", 1, "undefined alias"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, "could not determine a constructor"),
        ("? [1, 2]\n: 3\n", 1, "unhashable key"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(SuiteError) as caught:
        read(path, text)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: 2026-13-45\n", "a: \x01\n", "a: " + "9" * 5000 + "\n"])
def test_values_that_no_parser_can_make_are_refused(path: Path, text: str) -> None:
    with pytest.raises(SuiteError, match="not valid YAML") as caught:
        read(path, text)
    assert "\n" not in str(caught.value)


WRONGLY_TAGGED = ["!!bool maybe", "!!timestamp soon", "!!int ''", "!!float ''", "!!int x", "!!omap 3"]


@pytest.mark.parametrize("value", WRONGLY_TAGGED)
def test_a_tag_that_does_not_fit_its_value_is_refused(path: Path, value: str) -> None:
    with pytest.raises(SuiteError):
        read(path, f"a: {value}\n")


def test_a_missing_file_a_folder_and_bytes_are_told(path: Path, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"suite\.yaml: cannot be read \(No such file"):
        read_yaml(path)
    with pytest.raises(SuiteError, match="cannot be read"):
        read_yaml(tmp_path)
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(SuiteError, match="not a text file in UTF-8"):
        read_yaml(path)


def test_a_file_has_a_largest_size(path: Path) -> None:
    path.write_text("#" * MAX_BYTES)
    assert read_yaml(path).data is None
    path.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(SuiteError, match="larger than 250,000 bytes"):
        read_yaml(path)


def test_depth_is_bounded(path: Path) -> None:
    assert read(path, "[" * MAX_DEPTH + "]" * MAX_DEPTH).data is not None
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(SuiteError, match=f"nested deeper than {MAX_DEPTH} levels"):
            read(path, "[" * depth + "]" * depth)


def test_aliases_cannot_grow_without_bound(path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    with pytest.raises(SuiteError, match=f"more than {MAX_NODES:,} values, aliases counted"):
        read(path, "\n".join(lines))


def test_an_alias_of_itself_is_refused(path: Path) -> None:
    with pytest.raises(SuiteError, match=r"the alias \*a contains itself"):
        read(path, "a: &a [1, *a]\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500", 500),
        ("0.5", 0.5),
        ("[0, 1]", [0, 1]),
        ("linear", "linear"),
        ("{name: linear}", {"name": "linear"}),
        ("", None),
    ],
)
def test_values_of_the_command_line(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize("text", ["[1, 2", "{a: 1, a: 2}", "*a", "!!python/name:os.system", *WRONGLY_TAGGED])
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(SuiteError, match="is not a value in YAML"):
        parse_value(text)


def test_values_of_the_command_line_are_bounded_too() -> None:
    with pytest.raises(SuiteError, match="nested deeper"):
        parse_value("[" * 1000 + "]" * 1000)
