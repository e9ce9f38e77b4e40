"""The schema of a suite file."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from qbench.bits import LOW_BITS, BitWidth
from qbench.errors import SuiteError
from qbench.settings import Settings

LABEL = r"^[A-Za-z0-9][A-Za-z0-9_+-]{0,63}$"
INLINE = "pipeline"
"""Public id of the workload that a suite's own models are settings of."""
Label = Annotated[str, Field(pattern=LABEL, description="how rows are named")]


def _named(value: Any) -> Any:
    """Let a bare name stand for an entry without settings."""
    return {"name": value} if isinstance(value, str) else value


def characters(text: str) -> str:
    """Return a text; refuse half of a character, which YAML can express and no file can hold."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("holds code points that are no characters")
    return text


def _bits(text: str) -> str:
    """Return the canonical notation of a bit-width."""
    try:
        bits = BitWidth.parse(text)
    except SuiteError as error:
        raise ValueError(str(error)) from None
    if bits.is_full_precision:
        raise ValueError(f"{text} is full precision, which every suite runs by itself: leave it out")
    return str(bits)


def _offered(bits: int | None) -> int | None:
    """Refuse weight bits that nobody offers."""
    if bits is not None and bits not in LOW_BITS:
        raise ValueError(f"{bits} bits are not offered: use one of {', '.join(map(str, LOW_BITS))}")
    return bits


class WorkloadEntry(Settings):
    """A workload in a suite."""

    name: Annotated[str, Field(description="public id of the workload", examples=["tiny-ddim"])]
    label: Annotated[
        Label | None, Field(alias="as", description="how rows are named; the id by default", examples=["tiny-50"])
    ] = None
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings of the workload", examples=[{"model": "./my-ddpm"}]
    )
    sampler: dict[str, Any] = Field(
        default_factory=dict,
        description="sampler settings, the same as settings.sampler",
        examples=[{"steps": 50, "eta": 0}],
    )
    pipeline: Annotated[
        str | None,
        Field(
            description="a model of one's own in place of a public id: a folder of diffusers, or an id on the hub",
            examples=["./my-ddpm"],
        ),
    ] = None
    reference: dict[str, Any] = Field(
        default_factory=dict,
        description="real images, the same as settings.reference",
        examples=[{"images": "./train"}],
    )

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.pipeline is not None and "model" in self.settings:
            raise ValueError("'pipeline' and the setting 'model' are both given: they say the same, leave one out")
        return self

    @property
    def plugin(self) -> str:
        """Public id of the workload: that of models of one's own where one is given."""
        return self.name if self.pipeline is None else INLINE

    def given(self) -> dict[str, Any]:
        """Return all settings in one place; those that stand beside ``settings`` win."""
        settings = dict(self.settings)
        if self.pipeline is not None:
            settings["model"] = self.pipeline
        for key, values in (("sampler", self.sampler), ("reference", self.reference)):
            if values:
                inner = settings.get(key, {})
                settings[key] = {**inner, **values} if isinstance(inner, dict) else inner
        return settings


class MethodEntry(Settings):
    """A method in a suite."""

    name: Annotated[str, Field(description="public id of the method", examples=["qdiffusion"])]
    preset: Annotated[str | None, Field(description="a named bundle of settings", examples=["fast"])] = None
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings, over those of the preset", examples=[{"split": False}]
    )
    label: Annotated[
        Label | None,
        Field(alias="as", description="how rows are named; id and preset by default", examples=["qdiffusion-no-split"]),
    ] = None


class MetricEntry(Settings):
    """A metric in a suite."""

    name: Annotated[str, Field(description="public id of the metric", examples=["kid"])]
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings of the metric", examples=[{"subset_size": 500}]
    )


class Exclusion(Settings):
    """Cells that are not run: those that agree in every key given."""

    workload: Annotated[str | None, Field(description="label of the workload", examples=["tiny-ddim"])] = None
    method: Annotated[str | None, Field(description="label of the method", examples=["qdiffusion-fast"])] = None
    bits: Annotated[str | None, Field(description="a bit-width", examples=["W8A8"])] = None
    seed: Annotated[int | None, Field(description="a seed", examples=[1])] = None


class StandinSchema(Settings):
    """What ``--standin`` scales down."""

    steps: Annotated[int, Field(ge=1, le=1000, strict=True, description="sampling steps", examples=[20])] = 20
    samples: Annotated[
        int, Field(ge=1, le=10_000_000, strict=True, description="images of each cell", examples=[250])
    ] = 250
    preset: Annotated[str, Field(description="preset of every method that has it", examples=["fast"])] = "fast"
    boundary_bits: Annotated[
        int | None,
        Field(strict=True, description="weight bits of the first and last layer; null: no exception", examples=[8]),
    ] = 8
    metrics: Annotated[
        tuple[Annotated[MetricEntry, BeforeValidator(_named)], ...],
        Field(description="metrics beside the suite's own", examples=[["mse-to-fp"]]),
    ] = ()

    @field_validator("boundary_bits")
    @classmethod
    def _offered_bits(cls, value: int | None) -> int | None:
        return _offered(value)


class SuiteSchema(Settings):
    """A suite file.

    Every list holds names or entries with settings; cells are the product of workloads, methods, bits and seeds.
    """

    name: Annotated[Label, Field(description="results go to results/<name>", examples=["my-suite"])]
    title: Annotated[
        str,
        AfterValidator(characters),
        Field(description="headline of the tables", examples=["My method on the tiny model"]),
    ] = ""
    include: Annotated[
        tuple[str, ...],
        Field(
            description="other suites whose cells come after its own: files beside it, or names of installed ones",
            examples=[["quickstart"]],
        ),
    ] = ()
    workloads: Annotated[
        tuple[Annotated[WorkloadEntry, BeforeValidator(_named)], ...],
        Field(description="what is quantized", examples=[["tiny-ddim", "tiny-sd"]]),
    ] = ()
    methods: Annotated[
        tuple[Annotated[MethodEntry, BeforeValidator(_named)], ...],
        Field(description="how it is quantized", examples=[["linear", {"name": "qdiffusion", "preset": "fast"}]]),
    ] = ()
    bits: Annotated[
        tuple[Annotated[str, AfterValidator(_bits)], ...],
        Field(description="bit-widths; full precision runs by itself", examples=[["W8A8", "W4A32"]]),
    ] = ()
    metrics: Annotated[
        tuple[Annotated[MetricEntry, BeforeValidator(_named)], ...],
        Field(description="what is measured", examples=[["fd-fashion", "mse-to-fp"]]),
    ] = ()
    samples: Annotated[
        int, Field(ge=1, le=10_000_000, strict=True, description="images of each cell", examples=[500])
    ] = 1000
    steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=1000,
            strict=True,
            description="sampling steps of workloads that do not say their own",
            examples=[20],
        ),
    ] = None
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=2**63, strict=True)], ...],
        Field(min_length=1, description="each sets calibration and sampling noise", examples=[[0, 1, 2]]),
    ] = (0,)
    boundary_bits: Annotated[
        int | None,
        Field(strict=True, description="weight bits of the first and last layer; absent: no exception", examples=[8]),
    ] = None
    latency: Annotated[
        bool,
        Field(
            strict=True,
            description="whether seconds and memory of a denoiser call are measured, for the first of the seeds",
            examples=[True],
        ),
    ] = False
    exclude: Annotated[
        tuple[Exclusion, ...],
        Field(description="cells that are not run", examples=[[{"method": "linear", "bits": "W8A8"}]]),
    ] = ()
    published: Annotated[
        tuple[Label, ...],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        Field(
            description="published figures that its tables are compared with: names of files in suites/published",
            examples=[["q-diffusion"]],
        ),
    ] = ()
    standin: Annotated[
        StandinSchema | None,
        Field(
            description="what --standin scales down, here and in the suites that are included",
            examples=[{"steps": 20, "samples": 250}],
        ),
    ] = None

    @field_validator("boundary_bits")
    @classmethod
    def _offered_bits(cls, value: int | None) -> int | None:
        return _offered(value)
