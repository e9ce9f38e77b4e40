"""The schema of a file of published figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from qbench.bits import BitWidth
from qbench.errors import SuiteError
from qbench.settings import Settings
from qbench.suite_schema import characters

UNKNOWN = "unknown"
"""What a file says where its source does not tell."""
Number = Annotated[float, Field(strict=True)]


def _bits(text: str) -> str:
    """Return the canonical notation of a quantized bit-width."""
    try:
        bits = BitWidth.parse(text)
    except SuiteError as error:
        raise ValueError(str(error)) from None
    if bits.is_full_precision:
        raise ValueError(f"{text} is full precision, whose figures stand under 'full_precision'")
    return str(bits)


Text = Annotated[str, AfterValidator(characters)]
Name = Annotated[Text, Field(min_length=1, max_length=200)]


class PublishedSampler(Settings):
    """How published images were sampled; what a source does not tell is left out."""

    name: Annotated[Text | None, Field(description="the sampler, as a workload names it")] = None
    steps: Annotated[int | None, Field(ge=1, le=100_000, strict=True, description="sampling steps")] = None
    eta: Annotated[Number | None, Field(description="0 is deterministic DDIM, 1 has the variance of DDPM")] = None
    spacing: Annotated[Text | None, Field(description="how steps are spaced")] = None
    guidance_scale: Annotated[Number | None, Field(description="scale of classifier-free guidance; 1 is none")] = None


class Protocol(Settings):
    """What must be the same here for a published figure to be compared with."""

    samples: Annotated[
        int | None, Field(ge=1, le=10**9, strict=True, description="images; absent: the source does not tell")
    ] = None
    sampler: Annotated[PublishedSampler, Field(description="how they were sampled")] = PublishedSampler()
    boundary_bits: Annotated[
        Annotated[int, Field(ge=1, le=32, strict=True)] | Literal["unknown"] | None,
        Field(description="weight bits of the first and last layer; null: no exception"),
    ] = "unknown"
    left_out: Annotated[
        tuple[Text, ...] | Literal["unknown"],
        Field(description="patterns (* and ?) of the names of layers that stay in full precision; []: none"),
    ] = "unknown"
    obstacle: Annotated[Text, Field(description="why no run can be compared with it, such as another model")] = ""
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings of the method that a row must agree with; others are free"
    )
    metrics: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="by metric, what the description of its measurement must agree with, such as its extractor",
    )


class Origin(Settings):
    """What a table says of all its figures, and a row or figure of its own."""

    checked: Annotated[bool | None, Field(strict=True, description="whether figures were read in a source")] = None
    read_in: Annotated[Text | None, Field(description="where; 'secondary: ...' if it is not the source itself")] = None
    note: Annotated[Text | None, Field(description="what else to know")] = None


class FigureEntry(Origin):
    """A figure; a bare number stands for one of which nothing else is said."""

    value: Annotated[Number, Field(description="in the metric's unit")]
    band: Annotated[Number | None, Field(gt=0, description="what counts as the same")] = None


def _valued(value: Any) -> Any:
    """Let a bare number stand for a figure."""
    return value if isinstance(value, Mapping) else {"value": value}


Figures = Annotated[
    dict[Name, Annotated[FigureEntry, BeforeValidator(_valued)]], Field(min_length=1, description="figures by metric")
]


class RowEntry(Origin):
    """One method at one bit-width."""

    method: Annotated[Name, Field(description="public id of the method")]
    bits: Annotated[str, AfterValidator(_bits), Field(description="a bit-width")]
    figures: Figures


class TableEntry(Origin):
    """What one table says of one workload."""

    table: Annotated[Name, Field(description="which table of the paper")]
    workload: Annotated[Name, Field(description="public id of the workload")]
    protocol: dict[str, Any] = Field(default_factory=dict, description="of all figures, full precision included")
    methods: dict[Name, dict[str, Any]] = Field(
        default_factory=dict, description="by method, what its rows have of a protocol beside that of the table"
    )
    full_precision: Annotated[Figures | None, Field(description="figures of the full-precision model")] = None
    rows: tuple[RowEntry, ...] = ()


class PublishedFile(Origin):
    """All that is kept of one paper."""

    paper: Annotated[Name, Field(description="authors, year, where")]
    url: Annotated[Text, Field(pattern=r"^(https?://\S+)?$", description="where it is read")] = ""
    protocol: dict[str, Any] = Field(default_factory=dict, description="of all tables")
    tables: Annotated[tuple[TableEntry, ...], Field(min_length=1, description="its tables, one for each workload")]

    @model_validator(mode="after")
    def _tables_differ(self) -> Self:
        names = [(each.table, each.workload) for each in self.tables]
        for table, workload in names:
            if names.count((table, workload)) > 1:
                raise ValueError(f"{table!r} is there twice for {workload!r}: put its rows together")
        return self
