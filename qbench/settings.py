"""Settings: frozen pydantic models that validate what a suite says, with errors a person can act on."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from qbench.errors import SettingsError, did_you_mean

Location = tuple[int | str, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: nested, immutable, and closed to keys it does not know.

    Every field has a default and a description: the model validates YAML, is printed by
    ``qbench methods show`` and enters the digest of what depends on it.
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
        location: Location = problem["loc"]
        if problem["type"] == "extra_forbidden":
            owner = _model_at(model, location[:-1])
            known = _keys(owner) if owner else []
            message = f"unknown key {str(location[-1])!r}: {did_you_mean(str(location[-1]), known)}"
            raise error(f"{place(location)}: {message}") from None
        if problem["type"] == "missing":
            raise error(f"{place(location[:-1])}: the key {str(location[-1])!r} is missing") from None
        cause = problem.get("ctx", {}).get("error")
        text = str(cause) if cause is not None else _sentence(problem["msg"], problem.get("input"))
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

    Args:
        settings: an instance; made without arguments it tells the defaults.
        prefix: put before each name.
    """
    rows = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            rows += describe(value, f"{prefix}{name}.")
        else:
            kind = getattr(field.annotation, "__name__", None) if not get_args(field.annotation) else None
            text = kind or str(field.annotation).replace("typing.", "")
            rows.append((f"{prefix}{name}", text, str(value), field.description or ""))
    return rows


def _same_kind(base: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    return bool(over.get("kind", base.get("kind")) == base.get("kind"))


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _settings_class(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside an annotation, however deep in unions, lists and ``Annotated``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _settings_class(each))), None)


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    for step in location:
        if isinstance(step, int):
            continue
        field = next((each for name, each in model.model_fields.items() if step in (name, each.alias)), None)
        inner = _settings_class(field.annotation) if field else None
        if inner is None:
            return None
        model = inner
    return model


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    return {"str": "text", "list": "a list", "dict": "keys with values"}.get(type(value).__name__, f"{value!r}")


def _sentence(message: str, value: Any) -> str:
    message = re.sub(r"a valid (tuple|list)\b", "a list", message)
    message = re.sub(r"a valid dictionary( or instance of \w+)?", "keys with values", message)
    shown = repr(value)
    return f"{message[0].lower()}{message[1:]}, found {shown if len(shown) <= 80 else shown[:77] + '...'}"
