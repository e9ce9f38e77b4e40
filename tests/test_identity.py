import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qbench.errors import DataError
from qbench.identity import canonical_json, digest, file_digest

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)

DESCRIPTION = {
    "stage": "sample",
    "revision": 1,
    "parameters": {"eta": 0.5, "steps": 20, "label": None, "on": True, "bits": [4, 8]},
    "inputs": {},
}


def test_digests_of_today_are_those_of_tomorrow() -> None:
    """A change here throws away everybody's store: it needs a new VERSION."""
    assert digest({}) == "06051aa9d9b651d1023dcecda45e5ee4a23ffe5cc389bf9604ba8798614b8b66"
    assert digest(DESCRIPTION) == "cbe27966eb96c0797240bb59e2b5ecab4264f2cdd7ec475bc93341c2435d97c2"


def test_the_digest_is_that_of_the_canonical_text() -> None:
    text = '{"description":{"a":[1,0.5]},"identity":1}'
    assert digest({"a": (1, 0.5)}) == hashlib.sha256(text.encode()).hexdigest()


def test_json_is_sorted_dense_and_ascii() -> None:
    value = {"b": [1, 2.0, 1e-10], "a": {"ü": "ß", "z": None}, "A": True}
    assert canonical_json(value) == '{"A":true,"a":{"z":null,"\\u00fc":"\\u00df"},"b":[1,2.0,1e-10]}'


def test_the_order_of_keys_does_not_matter_that_of_lists_does() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})


def test_tuples_are_lists() -> None:
    assert canonical_json({"shape": (1, (2, 3))}) == canonical_json({"shape": [1, [2, 3]]})


def test_values_that_look_alike_are_told_apart() -> None:
    digests = {digest({"a": value}) for value in (0, 0.0, False, None, "0", "", [], {}, [0], "false", "null")}
    assert len(digests) == 11


@given(VALUES)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_json_holds_the_value(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_any_order_of_keys_gives_one_digest(description: dict[str, Any], random: Any) -> None:
    keys = list(description)
    random.shuffle(keys)
    assert digest({key: description[key] for key in keys}) == digest(description)


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_floats_survive_to_the_last_bit(value: float) -> None:
    assert json.loads(canonical_json(value)).hex() == value.hex()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_with_its_place(value: float) -> None:
    with pytest.raises(ValueError, match=r"\$\.grid\[1\]\.scale is -?(nan|inf)"):
        canonical_json({"grid": [1, {"scale": value}]})


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"x", "bytes"),
        ({1}, "set"),
        (object(), "object"),
        (Path("x"), "PosixPath"),
        (range(2), "range"),
    ],
)
def test_what_has_no_canonical_form_is_refused_with_its_place(value: object, kind: str) -> None:
    with pytest.raises(TypeError, match=rf"\$\.a\.b\[0\] is a {kind}"):
        canonical_json({"a": {"b": [value]}})


@pytest.mark.parametrize("key", [1, None, True, ("a",)])
def test_keys_are_strings(key: object) -> None:
    with pytest.raises(TypeError, match=r"\$\.a has the key .* keys of a description are strings"):
        canonical_json({"a": {key: 1}})


def test_the_digest_does_not_depend_on_the_process() -> None:
    code = "import json, sys; from qbench.identity import digest; print(digest(json.loads(sys.argv[1])))"
    run = [sys.executable, "-c", code, json.dumps(DESCRIPTION)]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "5"})
    assert done.stdout.strip() == digest(DESCRIPTION)


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    (tmp_path / "empty").touch()
    assert file_digest(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with pytest.raises(DataError, match="none cannot be read"):
        file_digest(tmp_path / "none")
