"""The pages of reference that come from the code: a suite's keys from its schema, commands from the command line.

Rewrites whatever stands between ``<!-- NAME -->`` and ``<!-- end -->`` by the part of that name; pages that are up to
date stay as they are.

    python docs/reference.py
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from qbench.cli.main import app
from qbench.diffusion.sampler_settings import SamplerSettings
from qbench.suite_schema import (
    LABEL,
    Exclusion,
    MethodEntry,
    MetricEntry,
    StandinSchema,
    SuiteSchema,
    WorkloadEntry,
)
from qbench.workloads.inline import InlineSamplerSettings, InlineScheduleSettings, InlineSettings
from qbench.workloads.reference_settings import PreprocessingSettings, ReferenceSettings

HERE = Path(__file__).parent
PAGES = (HERE / "suite-reference.md", HERE / "command-line.md")
MODELS: Mapping[type[BaseModel], str] = {
    SuiteSchema: "suite",
    WorkloadEntry: "workload",
    MethodEntry: "method",
    MetricEntry: "metric",
    Exclusion: "exclusion",
    StandinSchema: "standin",
    SamplerSettings: "sampler",
    InlineSettings: "pipeline",
    InlineSamplerSettings: "pipeline sampler",
    InlineScheduleSettings: "schedule",
    ReferenceSettings: "reference",
    PreprocessingSettings: "preprocessing",
}
"""Every model that a suite is made of, with the name of its part of the page."""
HEADINGS = {
    WorkloadEntry: "an-entry-of-workloads",
    MethodEntry: "an-entry-of-methods",
    MetricEntry: "an-entry-of-metrics",
    Exclusion: "an-entry-of-exclude",
    StandinSchema: "standin",
    InlineSamplerSettings: "sampler-of-a-model-of-ones-own",
    InlineScheduleSettings: "schedule",
    ReferenceSettings: "reference",
    PreprocessingSettings: "preprocessing",
}
"""Where on the page a model's keys are told, for those that another model names."""
LIMITS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "null"}


def keys(model: type[BaseModel]) -> str:
    """Return a table of a model's keys: type, default, meaning, an example."""
    rows = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        example = field.examples[0] if field.examples else None
        shown = "" if example is None else f"`{_yaml({key: example})}`"
        rows.append([f"`{key}`", _kind(field), _default(field), field.description or "", shown])
    return _table(["key", "what stands there", "default", "what it means", "example"], rows)


def _kind(field: FieldInfo) -> str:
    """Return in words what a field takes, with its limits."""
    return _limited(_words(field.annotation), field.metadata)


def _words(annotation: Any, plural: str = "") -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        metadata = [each for extra in inner[1:] for each in getattr(extra, "metadata", [extra])]
        return _limited(_words(inner[0], plural), metadata)
    if origin in (Union, UnionType):
        return " or ".join(map(_words, inner))
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in inner)
    if origin is tuple:
        return f"list of {_words(inner[0], plural='s')}"
    if origin is dict:
        return "keys with values"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{MODELS[annotation]}{plural}](#{HEADINGS[annotation]})"
    return WORDS[annotation] + plural


def _limited(words: str, metadata: Iterable[Any]) -> str:
    """Return words for a type with what else a value must be."""
    pairs = [(limit, getattr(each, limit)) for each in metadata for limit in LIMITS if hasattr(each, limit)]
    found = [LIMITS[limit].format("2^63" if value == 2**63 else f"{value:,}") for limit, value in pairs]
    if any(LABEL in (getattr(each, "pattern", None), getattr(each, "regex", None)) for each in metadata):
        words = words.replace("text", "name", 1)
    return f"{words}, {', '.join(found)}" if found else words


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its own defaults"
    return f"`{_yaml(list(value) if isinstance(value, tuple) else value)}`"


def _yaml(value: Any) -> str:
    """Return a value as a suite would have it, in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    text = text.removesuffix("\n").removesuffix("\n...")
    return text[1:-1] if isinstance(value, dict) and len(value) == 1 else text or "''"


def commands() -> str:
    """Return a section for each command, with its arguments and options."""
    return "\n".join(_command(name, command) for name, command in _all(typer.main.get_command(app), "qbench"))


def _all(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield name, command
    else:
        for each in subcommands:
            yield from _all(subcommands[each], f"{name} {each}")


def _command(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    places = [_place(each) for each in arguments]
    usage = " ".join([name, *places, *(["[options]"] if options else [])])
    lines = [f"## {name}", "", f"`{usage}`", "", _escaped(" ".join((command.help or "").split())), ""]
    rows = [[f"`{place}`", each.help or "", ""] for place, each in zip(places, arguments, strict=True)]
    rows += [[_names(each), each.help or "", _option_default(each)] for each in options]
    return "\n".join(lines) + "\n" + (_table(["", "what it does", "default"], rows) if rows else "")


def _place(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    name = f"{name}..." if argument.nargs == -1 and not name.endswith("...") else name
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _names(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or option.name.upper().replace('_', '-')}"
    repeated = ", repeatable" if option.multiple else ""
    return ", ".join(f"`{name}{value}`" for name in (*option.opts, *option.secondary_opts)) + repeated


def _option_default(option: Any) -> str:
    return "" if option.default in (None, False, [], ()) or option.is_flag else f"`{option.default}`"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(header)
    lines = [names, ["---"] * len(names), *(list(map(_escaped, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(text: str) -> str:
    """Return a text whose signs of HTML, outside of code, and of tables stand for themselves."""
    parts = re.split(r"(`[^`]*`)", text)
    plain = [part if part.startswith("`") else part.replace("<", "&lt;") for part in parts]
    return "".join(plain).replace("|", "\\|")


PARTS: Mapping[str, Callable[[], str]] = {
    **{f"keys of {name}": partial(keys, model) for model, name in MODELS.items()},
    "commands": commands,
}


def rewritten(page: str) -> str:
    """Return a page with its parts as the code has them now.

    Raises:
        KeyError: the page asks for a part that there is not.
    """

    def replace(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{PARTS[match[1]]()}<!-- end -->"

    return re.sub(r"<!-- ((?:keys|commands).*?) -->\n.*?<!-- end -->", replace, page, flags=re.DOTALL)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
