"""Settings: frozen pydantic models that validate what a suite says, with errors a person can act on."""

import re
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from qbench.errors import SettingsError, did_you_mean

Location = tuple[int | str, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: nested, immutable, and closed to keys it does not know.

    Every field has a default and a description: the model validates YAML, is printed by
    ``qbench methods show`` and enters the digest of what depends on it. A field that takes one of several models is
    a union with ``Field(discriminator="kind")``, and each of the models says its ``kind`` as a Literal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NoSettings(Settings):
    """The settings of something that has none."""


def validate(
    model: type[ModelT],
    raw: Any,
    place: Callable[[Location], str],
    error: Callable[[str], Exception] = SettingsError,
) -> ModelT:
    """Return ``raw`` as an instance of ``model``, or say in one sentence what is wrong with it.

    Args:
        model: the pydantic model.
        raw: plain data, as YAML gives it.
        place: turns a location inside ``raw`` into words for the message.
        error: makes the exception from the message.

    Raises:
        Exception: what ``error`` makes, SettingsError by default; only the first problem is told.
    """
    if not isinstance(raw, Mapping):
        raise error(f"{place(())}: expected keys with values, found {_kind(raw)}")
    try:
        return model.model_validate(dict(raw))
    except ValidationError as failure:
        problem = failure.errors(include_url=False)[0]
        location, text = _explained(model, problem)
        raise error(f"{place(location)}: {text}") from None


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``over``, nested mappings merged.

    A nested mapping that names another ``kind`` replaces the one in ``base`` whole: the two have other keys.
    """
    result = dict(base)
    for key, value in over.items():
        inner = result.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping) and _same_kind(inner, value):
            result[key] = merged(inner, value)
        else:
            result[key] = value
    return result


def describe(settings: Settings, prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Return one row for each field, nested ones with dotted names: name, type, value, description.

    Where other kinds of settings could be in a place, their fields are told too, with their defaults.

    Args:
        settings: an instance; made without arguments it tells the defaults.
        prefix: put before each name.
    """
    rows = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        members = _models(field.annotation)
        if isinstance(value, Settings) and len(members) > 1 and all(map(_kinds, members)):
            rows += _describe_union(value, members, f"{prefix}{name}.")
        elif isinstance(value, Settings):
            rows += describe(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", _type_text(field.annotation), str(value), field.description or ""))
    return rows


def _describe_union(
    value: Settings, members: Sequence[type[BaseModel]], prefix: str
) -> list[tuple[str, str, str, str]]:
    """Return the row of ``kind``, then the fields of all kinds, equal ones once, those of ``value`` first."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for member in sorted(members, key=lambda each: not isinstance(value, each)):
        shown = value if isinstance(value, member) else member()
        for row in describe(cast(Settings, shown), prefix):
            found.setdefault(row, []).extend(_kinds(member))
    kinds = [kind for member in members for kind in _kinds(member)]
    *_, own, description = next(row for row in found if row[0] == f"{prefix}kind")
    first = (f"{prefix}kind", f"Literal[{', '.join(map(repr, kinds))}]", own, description)
    others = [row for row in found if row[0] != first[0]]
    return [first, *((*row[:3], f"with {', '.join(found[row])}: {row[3]}") for row in others)]


def _type_text(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(inner[0])
    if origin in (Union, UnionType):
        return " | ".join(map(_type_text, inner))
    if isinstance(origin, type):
        return f"{origin.__name__}[{', '.join('...' if each is ... else _type_text(each) for each in inner)}]"
    if isinstance(annotation, type) and not inner:
        return annotation.__name__.replace("NoneType", "None")
    return str(annotation).replace("typing.", "")


def _explained(model: type[BaseModel], problem: Mapping[str, Any]) -> tuple[Location, str]:
    """Return where in the data a problem is, and what it is."""
    location, members = _followed(model, problem["loc"])
    if problem["type"] == "extra_forbidden":
        _, owners = _followed(model, problem["loc"][:-1])
        known = [key for owner in owners for key in _keys(owner)]
        return location, f"unknown key {str(location[-1])!r}: {did_you_mean(str(location[-1]), known)}"
    if problem["type"] == "missing":
        return location[:-1], f"the key {str(location[-1])!r} is missing"
    kinds = [kind for member in members for kind in _kinds(member)]
    if problem["type"] == "union_tag_not_found":
        return location, f"the key 'kind' is missing: known are {', '.join(sorted(kinds))}"
    if problem["type"] == "union_tag_invalid":
        wrong = problem["input"]["kind"]
        return (*location, "kind"), f"unknown kind {wrong!r}: {did_you_mean(str(wrong), kinds)}"
    cause = problem.get("ctx", {}).get("error")
    return location, str(cause) if cause is not None else _sentence(problem["msg"], problem.get("input"))


def _same_kind(base: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    return bool(over.get("kind", base.get("kind")) == base.get("kind"))


def _kinds(model: type[BaseModel]) -> tuple[str, ...]:
    """Return what a member of a union has for ``kind``."""
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field else ()


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models inside an annotation, however deep in unions, lists and ``Annotated``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for each in get_args(annotation) for found in _models(each)]


def _followed(model: type[BaseModel], location: Location) -> tuple[Location, list[type[BaseModel]]]:
    """Return a location as the data have it, and the models that could be there.

    Behind a union, pydantic puts the kind that it chose into the location.
    """
    plain: list[int | str] = []
    models = [model]
    for step in location:
        if isinstance(step, int):
            plain.append(step)
        elif len(models) > 1:
            models = [each for each in models if step in _kinds(each)]
        else:
            plain.append(step)
            fields = [
                field for each in models for name, field in each.model_fields.items() if step in (name, field.alias)
            ]
            models = [found for field in fields for found in _models(field.annotation)]
    return tuple(plain), models


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    return {"str": "text", "list": "a list", "dict": "keys with values"}.get(type(value).__name__, f"{value!r}")


def _sentence(message: str, value: Any) -> str:
    message = re.sub(r"a valid (tuple|list)\b", "a list", message)
    message = re.sub(r"a valid dictionary( or (instance|object) .*)?", "keys with values", message)
    shown = repr(value)
    return f"{message[0].lower()}{message[1:]}, found {shown if len(shown) <= 80 else shown[:77] + '...'}"
