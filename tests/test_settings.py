import subprocess
import sys
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from qbench.errors import SettingsError, SuiteError
from qbench.settings import NoSettings, Settings, describe, merged, validate


class Round(Settings):
    times: Annotated[int, Field(ge=1, description="how often")] = 1


class Recipe(Settings):
    inner: Annotated[Round, Field(description="nested")] = Round()
    perhaps: Annotated[Round | None, Field(description="nested or nothing")] = None
    several: Annotated[tuple[Round, ...], Field(description="a list")] = ()
    kind: Annotated[Literal["a", "b"], Field(description="a choice")] = "a"
    rate: Annotated[float, Field(description="a number")] = 0.5

    @model_validator(mode="after")
    def _agree(self) -> "Recipe":
        if self.rate > 10:
            raise ValueError("rate is more than this recipe bears: lower it")
        return self


class Even(Settings):
    kind: Annotated[Literal["even"], Field(description="the kind")] = "even"
    count: Annotated[int, Field(ge=1, description="how many")] = 2
    inner: Annotated[Round, Field(description="nested")] = Round()


class Odd(Settings):
    kind: Annotated[Literal["odd"], Field(description="the kind")] = "odd"
    count: Annotated[int, Field(ge=1, description="how many")] = 2
    share: Annotated[float, Field(description="which part")] = 0.5


Parity = Annotated[Even | Odd, Field(discriminator="kind")]


class Choosy(Settings):
    parity: Annotated[Parity, Field(description="one of two")] = Even()
    perhaps: Annotated[Parity | None, Field(description="one of two or nothing")] = None
    several: Annotated[tuple[Parity, ...], Field(description="any number of them")] = ()


class Needy(Settings):
    must: Annotated[int, Field(alias="must-be", description="no default")]


def place(location: tuple[int | str, ...]) -> str:
    return "/".join(["top", *map(str, location)])


def test_plain_data_becomes_settings_with_defaults() -> None:
    found = validate(Recipe, {"inner": {"times": 3}, "kind": "b"}, place)
    assert found == Recipe(inner=Round(times=3), kind="b", rate=0.5)
    assert validate(NoSettings, {}, place) == NoSettings()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"knid": "a"}, "top/knid: unknown key 'knid': did you mean 'kind'?"),
        ({"inner": {"tims": 1}}, "top/inner/tims: unknown key 'tims': did you mean 'times'?"),
        ({"several": [{}, {"tims": 1}]}, "top/several/1/tims: unknown key 'tims': did you mean 'times'?"),
        ({"perhaps": {"tims": 1}}, "top/perhaps/tims: unknown key 'tims': did you mean 'times'?"),
        ({"inner": {"times": 0}}, "top/inner/times: input should be greater than or equal to 1, found 0"),
        ({"kind": "c"}, "top/kind: input should be 'a' or 'b', found 'c'"),
        ({"rate": 11}, "top: rate is more than this recipe bears: lower it"),
        (None, "top: expected keys with values, found nothing"),
        ("linear", "top: expected keys with values, found text"),
        ([1], "top: expected keys with values, found a list"),
    ],
)
def test_what_does_not_fit_is_one_sentence_with_a_place(raw: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        validate(Recipe, raw, place)
    assert str(caught.value) == message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"parity": {"kind": "odd", "shar": 1}}, "top/parity/shar: unknown key 'shar': did you mean 'share'?"),
        (
            {"parity": {"kind": "odd", "inner": {}}},
            "top/parity/inner: unknown key 'inner': known are count, kind, share",
        ),
        (
            {"parity": {"kind": "even", "inner": {"tims": 1}}},
            "top/parity/inner/tims: unknown key 'tims': did you mean 'times'?",
        ),
        (
            {"parity": {"kind": "odd", "count": 0}},
            "top/parity/count: input should be greater than or equal to 1, found 0",
        ),
        ({"parity": {"kind": "evn"}}, "top/parity/kind: unknown kind 'evn': did you mean 'even'?"),
        ({"parity": {"kind": 3}}, "top/parity/kind: unknown kind 3: known are even, odd"),
        ({"parity": {"kind": ["even"]}}, "top/parity/kind: unknown kind ['even']: did you mean 'even'?"),
        ({"parity": {"count": 3}}, "top/parity: the key 'kind' is missing: known are even, odd"),
        ({"parity": 3}, "top/parity: input should be keys with values, found 3"),
        ({"parity": None}, "top/parity: input should be keys with values, found None"),
        ({"perhaps": {"kind": "odd", "shar": 1}}, "top/perhaps/shar: unknown key 'shar': did you mean 'share'?"),
        ({"perhaps": {"kind": "od"}}, "top/perhaps/kind: unknown kind 'od': did you mean 'odd'?"),
        (
            {"several": [{"kind": "even"}, {"kind": "odd", "shar": 1}]},
            "top/several/1/shar: unknown key 'shar': did you mean 'share'?",
        ),
        ({"several": [{"kind": "od"}]}, "top/several/0/kind: unknown kind 'od': did you mean 'odd'?"),
    ],
)
def test_a_union_is_explained_by_its_kind(raw: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        validate(Choosy, raw, place)
    assert str(caught.value) == message


def test_the_kind_decides_the_settings() -> None:
    found = validate(Choosy, {"parity": {"kind": "odd"}, "several": [{"kind": "even", "count": 4}]}, place)
    assert found == Choosy(parity=Odd(), several=(Even(count=4),))
    assert validate(Choosy, found.model_dump(), place) == found


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(SettingsError, match="top/rate: input should be a finite number"):
        validate(Recipe, {"rate": value}, place)


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(SettingsError, match="top"):
        validate(Recipe, {1: 2}, place)


def test_a_missing_key_is_named_as_it_is_written() -> None:
    with pytest.raises(SettingsError, match=r"^top: the key 'must-be' is missing$"):
        validate(Needy, {}, place)
    with pytest.raises(SettingsError, match=r"did you mean 'must-be'\?"):
        validate(Needy, {"must-be": 1, "must_be": 1}, place)


def test_a_long_value_is_cut_short() -> None:
    with pytest.raises(SettingsError) as caught:
        validate(Recipe, {"kind": "x" * 1000}, place)
    assert len(str(caught.value)) < 200


def test_the_caller_chooses_the_error() -> None:
    with pytest.raises(SuiteError, match="top"):
        validate(Recipe, {"nonsense": 1}, place, SuiteError)


def test_settings_are_frozen_through_and_through() -> None:
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.rate = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        recipe.inner.times = 2  # type: ignore[misc]


def test_a_description_has_a_row_for_each_field() -> None:
    assert describe(Recipe())[0] == ("inner.times", "int", "1", "how often")
    rows = {row[0]: row[1:] for row in describe(Recipe(rate=0.75))}
    assert list(rows) == ["inner.times", "perhaps", "several", "kind", "rate"]
    assert rows["rate"] == ("float", "0.75", "a number")
    assert rows["kind"] == ("Literal['a', 'b']", "a", "a choice")
    assert {row[0] for row in describe(Recipe(perhaps=Round()))} >= {"perhaps.times"}


def test_a_union_is_described_with_all_its_kinds() -> None:
    assert describe(Choosy(parity=Odd(count=7))) == [
        ("parity.kind", "Literal['even', 'odd']", "odd", "the kind"),
        ("parity.count", "int", "7", "with odd: how many"),
        ("parity.share", "float", "0.5", "with odd: which part"),
        ("parity.count", "int", "2", "with even: how many"),
        ("parity.inner.times", "int", "1", "with even: how often"),
        ("perhaps", "Even | Odd | None", "None", "one of two or nothing"),
        ("several", "tuple[Even | Odd, ...]", "()", "any number of them"),
    ]
    assert ("parity.count", "int", "2", "with even, odd: how many") in describe(Choosy())


def test_settings_are_laid_over_each_other_key_by_key() -> None:
    base = {"inner": {"times": 1, "also": 2}, "rate": 0.5, "several": [1]}
    assert merged(base, {"inner": {"times": 3}, "several": [2]}) == {
        "inner": {"times": 3, "also": 2},
        "rate": 0.5,
        "several": [2],
    }
    assert base == {"inner": {"times": 1, "also": 2}, "rate": 0.5, "several": [1]}


def test_another_kind_is_laid_over_whole() -> None:
    base = {"inner": {"kind": "a", "times": 1}}
    assert merged(base, {"inner": {"kind": "b", "rate": 2}}) == {"inner": {"kind": "b", "rate": 2}}
    assert merged(base, {"inner": {"kind": "a", "rate": 2}}) == {"inner": {"kind": "a", "times": 1, "rate": 2}}


def test_reading_settings_does_not_import_torch() -> None:
    code = """
import sys
from qbench_methods.linear import Linear
from qbench.settings import describe, validate
from qbench.workload import WorkloadSettings
validate(Linear.settings_class, {"calibration": {"kind": "normal-steps", "count": 4}}, str)
validate(WorkloadSettings, {"sampler": {"steps": 4}}, str)
describe(Linear.settings_class())
sys.exit("torch was imported" if "torch" in sys.modules else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
