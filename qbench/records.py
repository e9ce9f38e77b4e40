"""The schema of a record: the JSON file that says what became of a cell."""

import json
import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qbench.errors import ResultsError
from qbench.identity import digest
from qbench.metrics.extractor import Extractor
from qbench.metrics.metric import Metric

SCHEMA = 3
WITHOUT_LATENCY = 2
READABLE = (1, WITHOUT_LATENCY, SCHEMA)
"""Versions that are read: 1 lacks what has a default in 2, and 2 has no latency. A record without one is written as of
version 2, so that those of suites that ask for none stay as they are."""
LEFTOVER_SECONDS = 60.0
"""How long writing a file of the results takes at most, on a slow file system too."""
Status = Literal["complete", "failed", "pending"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SuiteInfo(_Part):
    """Which suite a record belongs to."""

    name: str
    title: str
    position: Annotated[int, Field(description="place of the cell in the suite, from 0")]
    file: Annotated[str, Field(description="what `qbench run` was given, without its folder")] = ""
    standin: Annotated[bool, Field(description="whether it ran with --standin")] = False
    overrides: Annotated[dict[str, Any], Field(description="values given with --set")] = {}
    published: Annotated[list[str], Field(description="names of the published figures it is compared with")] = []


class StandinInfo(_Part):
    """What a tiny model stands in for."""

    workload: Annotated[str, Field(description="public id of the workload that it replaces")]
    metrics: Annotated[dict[str, str], Field(description="for each metric of that workload, what stands in for it")]


class MetricInfo(_Part):
    """What a column stands for."""

    title: str
    direction: Literal["lower", "higher"]
    against: str
    protocol: str
    caveat: Annotated[str, Field(description="what must not be concluded from it")] = ""
    paper: str
    description: Annotated[dict[str, Any], Field(description="what identifies the metric and its extractor")]

    @classmethod
    def of(cls, metric: Metric, extractor: Extractor | None, **used: Any) -> Self:
        """Return what a metric says of itself, and descriptions of whatever else was used, by name."""
        return cls(
            title=metric.title,
            direction=metric.direction,
            against=metric.against.value,
            protocol=metric.protocol,
            caveat=metric.caveat,
            paper=metric.paper,
            description={
                "metric": metric.describe(),
                "extractor": None if extractor is None else extractor.describe(),
                **used,
            },
        )


class Figure(_Part):
    """A measured figure and its difference from full precision."""

    value: float
    delta: Annotated[float | None, Field(description="minus full precision; none in full precision itself")] = None
    low: Annotated[float | None, Field(description="lower end of the difference's 95 % interval")] = None
    high: Annotated[float | None, Field(description="upper end")] = None
    samples: int
    without: Annotated[
        list[float],
        Field(description="the figure without each group of images, so that any two rows can be compared in pairs"),
    ] = []


class ProfileInfo(_Part):
    """Size and coverage of the denoiser."""

    size_mb: float
    coverage_macs: float
    coverage_parameters: float
    left_out: list[str]


RelativeError = Annotated[float, Field(ge=0)]


class CurveInfo(_Part):
    """The relative squared error against full precision at each step, median over samples; see the stage ``curve``."""

    samples: Annotated[int, Field(ge=1, description="how many the median is over")]
    step_index: Annotated[list[int], Field(min_length=1, description="from 0, the noise end")]
    timestep: Annotated[list[int], Field(description="training timestep of each step")]
    teacher_forced: Annotated[
        list[RelativeError], Field(description="of the noise estimate at each step, from full precision's x_t")
    ]
    free_running: Annotated[
        list[RelativeError], Field(description="of x in front of each step, and behind the last: of x_0")
    ]

    @model_validator(mode="after")
    def _has_a_value_for_each_step(self) -> Self:
        steps = len(self.step_index)
        counts = (len(self.timestep), len(self.teacher_forced), len(self.free_running))
        if self.step_index != list(range(steps)) or counts != (steps, steps, steps + 1):
            raise ValueError("the curve does not have one value for each step, counted from 0, and one behind the last")
        return self


class CallInfo(_Part):
    """What a call of the denoiser costs."""

    seconds: Annotated[float, Field(gt=0, description="median over rounds")]
    peak_mb: Annotated[float, Field(ge=0, description="most memory needed beside what is resident, decimal MB")]


class IntegerCallInfo(CallInfo):
    """A call whose multiplications are really those of 8-bit integers, and how its output compares with simulation."""

    macs: Annotated[float, Field(ge=0, le=1, description="share of all multiply-accumulates that are done in integers")]
    difference: Annotated[
        float,
        Field(ge=0, description="squared norm of the difference from the simulated output, relative to the output's"),
    ]
    largest_difference: Annotated[float, Field(ge=0, description="largest difference of an entry of the output")]


class LatencyInfo(_Part):
    """Seconds and memory of a denoiser call, measured in turn on one machine; see the stage ``latency``."""

    batch: Annotated[int, Field(ge=1, description="samples in a call; with guidance, each is in it twice")]
    step_index: Annotated[int, Field(ge=0, description="step of the sampler whose x_t the call is given")]
    rounds: Annotated[int, Field(ge=1, description="how often each was timed")]
    device: str
    device_name: Annotated[str | None, Field(description="of the processor or accelerator")] = None
    instructions: Annotated[str, Field(description="of a CPU: which vector instructions it has")] = ""
    threads: Annotated[int, Field(ge=1)]
    dtype: Annotated[str, Field(description="what is computed in, integers aside")]
    compiled: Annotated[bool, Field(description="whether torch.compile was used")]
    packed_mb: Annotated[float, Field(description="the packed checkpoint; all tensors where no weight is quantized")]
    resident_mb: Annotated[float, Field(description="parameters and buffers as they lie in memory")]
    full_precision: CallInfo
    quantized: Annotated[CallInfo | None, Field(description="simulated in floating point; none in full precision")] = (
        None
    )
    int8: Annotated[IntegerCallInfo | None, Field(description="only where there are kernels for it")] = None
    int8_reason: Annotated[str | None, Field(description="why there is none at W8A8")] = None


class StageCost(_Part):
    """One stage behind the cell's figures."""

    stage: str
    digest: str
    seconds: float
    peak_memory_mb: float


class Record(_Part):
    """What became of a cell."""

    schema_version: int = WITHOUT_LATENCY
    suite: SuiteInfo
    workload: Annotated[str, Field(description="label of the workload")]
    method: Annotated[str | None, Field(description="public id of the method; none in full precision")]
    label: Annotated[str, Field(description="label of the method")]
    bits: str
    boundary_bits: int | None
    seed: int
    samples: int
    status: Status
    reason: Annotated[str | None, Field(description="why the cell failed")] = None
    description: Annotated[dict[str, Any], Field(description="what decides the cell's figures")]
    digest: str
    baseline: Annotated[str, Field(description="digest of the full-precision cell it is compared with")]
    results: Annotated[dict[str, str], Field(description="digests of profile and curve, and of figures by metric")]
    metrics: dict[str, MetricInfo]
    figures: dict[str, Figure] = {}
    failures: Annotated[dict[str, str], Field(description="why a figure or the curve is not there, by name")] = {}
    profile: ProfileInfo | None = None
    curve: Annotated[CurveInfo | None, Field(description="none in full precision, nor of images made elsewhere")] = None
    latency: Annotated[LatencyInfo | None, Field(description="of suites that ask for it, for the first seed")] = None
    latency_failure: Annotated[
        str | None, Field(description="why it is not there; the cell is complete all the same")
    ] = None
    stages: list[StageCost] = []
    environment: Annotated[dict[str, Any], Field(description="versions and hardware it was made with")] = {}
    git: Annotated[dict[str, Any] | None, Field(description="checkout that held the suite")] = None
    stands_in_for: Annotated[StandinInfo | None, Field(description="none unless it is a stand-in")] = None

    @model_validator(mode="after")
    def _is_of_a_version_that_has_what_it_holds(self) -> Self:
        if self.has_latency and self.schema_version < SCHEMA:
            raise ValueError(f"a record of version {self.schema_version} has no latency")
        return self

    @property
    def has_latency(self) -> bool:
        """Whether it tells of latency, be it that there is none."""
        return self.latency is not None or self.latency_failure is not None

    @property
    def is_full_precision(self) -> bool:
        """Whether nothing is quantized."""
        return self.digest == self.baseline

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells its row from others: workload, label, bits, seed."""
        return (self.workload, self.label, self.bits, self.seed)


def write_record(record: Record, path: Path) -> None:
    """Write a record aside and rename it into place.

    Raises:
        ResultsError: the folder cannot be written.
    """
    left_out = None if record.has_latency else {"latency", "latency_failure"}
    text = json.dumps(record.model_dump(mode="json", exclude=left_out), indent=1, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file of the results; see ``write_bytes``. What is no character is written as an escape."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of the results whole or not at all; leave it alone if it already says this.

    Raises:
        ResultsError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.is_file() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_bytes(content)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise ResultsError(
            f"{path} cannot be written ({error.strerror}): name another folder with --results"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left in a folder of results.

    A file is written in a moment: what is younger than ``LEFTOVER_SECONDS`` may be another process at work.
    """
    for path in folder.rglob(".*"):
        if path.suffix[1:].isdecimal() and path.is_file():
            with suppress(FileNotFoundError):  # renamed by the process that writes it
                if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                    path.unlink()


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        ResultsError: it is unreadable, of another version, or does not vouch for its own digest.
    """
    try:
        record, vouched = _parsed(path.read_bytes())
    except _OtherVersion as error:
        versions = ", ".join(map(str, READABLE))
        raise ResultsError(f"{path}: record of version {error.args[0]!r}, this qbench reads {versions}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise ResultsError(f"{path}: not a record ({where}: {problem['msg']})") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ResultsError(f"{path}: cannot be read as a record ({error})") from None
    if not vouched:
        raise ResultsError(f"{path}: its description does not give its digest, so it was altered")
    return record


class _OtherVersion(Exception):
    """What is read is a record of a version that this qbench does not know."""


@lru_cache(maxsize=1024)
def _parsed(content: bytes) -> tuple[Record, bool]:
    """Return a record and whether it vouches for its digest; a run reads each of its records several times."""
    raw = json.loads(content.decode("utf-8"))
    if isinstance(raw, dict) and raw.get("schema_version") not in READABLE:
        raise _OtherVersion(raw.get("schema_version"))
    record = Record.model_validate(raw)
    return record, digest(record.description) == record.digest
