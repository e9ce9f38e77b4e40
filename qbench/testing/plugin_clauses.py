"""Clauses that hold for methods, workloads and metrics alike: what a plugin says of itself, and how it is imported."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from qbench.errors import QbenchError
from qbench.settings import Settings
from qbench.testing.report import Clause
from qbench.testing.subject import Subject

IMPORT_SECONDS = 60
_IMPORT = """
import importlib, importlib.util, json, sys
name, file, attribute, sys.path[:] = json.loads(sys.argv[1])
try:
    module = importlib.import_module(name)
except ModuleNotFoundError as error:
    if error.name is None or not (name + ".").startswith(error.name + ".") or not file:
        raise
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
found = module
for part in attribute.split("."):
    found = getattr(found, part)
found.settings_class().model_dump_json()
print(json.dumps("torch" in sys.modules))
"""


def _import_faults(subject: Subject[Any]) -> Iterator[str]:
    found = subject.found
    name, file, attribute = found.__module__, inspect.getsourcefile(found), found.__qualname__
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, json.dumps([name, file, attribute, sys.path])],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=IMPORT_SECONDS,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield f"a process without an accelerator cannot import {name} and make {attribute}'s settings ({last})"
    elif json.loads(done.stdout.splitlines()[-1]):
        yield f"importing {name} imports torch, so that listing what is installed takes seconds"


def _settings_faults(subject: Subject[Any]) -> Iterator[str]:
    found = subject.found.settings_class
    if not issubclass(found, Settings):
        yield f"{found.__name__} does not derive from qbench.settings.Settings, which refuses unknown keys"
        return
    undocumented = list(_field_faults(found))
    yield from undocumented
    if any(fault.endswith("has no default") for fault in undocumented):
        return
    presets: Mapping[str, Mapping[str, Any]] = getattr(subject.found, "presets", {})
    for name, settings in {"the defaults": {}, "the settings given": subject.settings, **presets}.items():
        words = f"the preset {name!r}" if name in presets else name
        try:
            checked = subject.checked(settings)
        except QbenchError as error:
            yield f"{words}: {error}"
            continue
        if found.model_validate(json.loads(checked.model_dump_json())) != checked:
            yield f"{words} are others after a round trip through JSON"


def _field_faults(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if field.is_required():
            yield f"the setting {prefix}{name} has no default"
        if not (field.description or "").strip():
            yield f"the setting {prefix}{name} has no description"
        for inner in _models_in(field.annotation):
            yield from _field_faults(inner, f"{prefix}{name}.")


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for each in get_args(annotation) for found in _models_in(each)]


def _identity_faults(subject: Subject[Any]) -> Iterator[str]:
    found = subject.found
    if not found.title.strip():
        yield "it has no title"
    if type(found.revision) is not int or found.revision < 1:
        yield f"its revision is {found.revision!r}, not an integer from 1 on"
    first, second = subject.make().describe(), subject.make().describe()
    try:
        plain = json.loads(json.dumps(first, allow_nan=False))
    except (TypeError, ValueError) as error:
        yield f"describe() holds what is no plain data ({error})"
        return
    if plain != first:
        yield "describe() holds what JSON gives back as something else"
    if first != second:
        yield "describe() differs between two instances with the same settings"


IMPORT = Clause[Subject[Any]](
    "import",
    "Import torch under `if TYPE_CHECKING:` and in the methods that need it; `from qbench import quant` is free.",
    _import_faults,
)
SETTINGS = Clause[Subject[Any]](
    "settings",
    'Write each field as `name: Annotated[type, Field(description="...")] = default` in a class of Settings.',
    _settings_faults,
    is_ground=True,
)
IDENTITY = Clause[Subject[Any]](
    "identity",
    "Give it a title and a revision; describe() is what digests are taken of, so it must be plain and stable.",
    _identity_faults,
    is_ground=True,
)
"""describe() differing between instances would make every run compute everything again."""
SHARED = (IMPORT, SETTINGS, IDENTITY)
