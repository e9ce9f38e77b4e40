"""The workload ``pipeline``: any folder of diffusers or hub id that the loaders know, written inline in a suite."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from qbench.diffusion.sampler_settings import FinalAlpha, SamplerName, SamplerSettings, ScheduleSettings, Spacing
from qbench.errors import DataError
from qbench.settings import Settings, validate
from qbench.workloads.pipeline_workload import PipelineSettings, PipelineWorkload

DEFAULT_STEPS = 50


class InlineSamplerSettings(Settings):
    """The sampler and its steps; what is not given is as the folder's scheduler says."""

    name: Annotated[SamplerName | None, Field(description="the sampler", examples=["plms"])] = None
    steps: Annotated[int, Field(ge=1, le=1000, description="sampling steps", examples=[20])] = DEFAULT_STEPS
    eta: Annotated[
        float,
        Field(ge=0, le=1, description="0 is deterministic DDIM, 1 has the variance of DDPM; ddim only", examples=[1.0]),
    ] = 0.0
    spacing: Annotated[Spacing | None, Field(description="how steps are spaced", examples=["trailing"])] = None
    steps_offset: Annotated[
        int | None, Field(ge=0, le=999, description="added to every timestep; with spacing uniform only", examples=[1])
    ] = None
    final_alpha: Annotated[
        FinalAlpha | None, Field(description="signal level behind the last step", examples=["first"])
    ] = None
    guidance_scale: Annotated[
        float, Field(ge=0, description="scale of classifier-free guidance; 1 is none", examples=[7.5])
    ] = 1.0


class InlineScheduleSettings(Settings):
    """The noise schedule, where the folder does not say it."""

    train_steps: Annotated[int, Field(ge=1, description="length T of the training schedule", examples=[1000])] = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1, description="first beta", examples=[0.0015])] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1, description="last beta", examples=[0.0195])] = 0.02
    betas: Annotated[
        Literal["linear", "scaled_linear"],
        Field(description="what is linear: beta, or its square root", examples=["scaled_linear"]),
    ] = "linear"
    prediction: Annotated[
        Literal["epsilon", "v_prediction"], Field(description="what the denoiser predicts", examples=["v_prediction"])
    ] = "epsilon"


class InlineSettings(PipelineSettings):
    """Settings of a workload written inline."""

    sampler: Annotated[
        InlineSamplerSettings, Field(description="how images are sampled", examples=[{"name": "ddim", "steps": 50}])
    ] = InlineSamplerSettings()
    schedule: Annotated[
        InlineScheduleSettings | None,
        Field(description="the noise schedule, where the folder does not say it", examples=[{"beta_end": 0.02}]),
    ] = None


class Pipeline(PipelineWorkload):
    """A model of one's own: a folder of diffusers or a hub id, its sampler, and the images it is compared with."""

    settings_class = InlineSettings
    title = "any diffusers folder or hub id with a UNet, written inline in a suite with 'pipeline:'"
    settings: InlineSettings

    @property
    def name(self) -> str:
        """What its model is called, to tell it from others in messages."""
        return self.settings.model.rpartition("/")[2] or super().name

    @cached_property
    def schedule(self) -> ScheduleSettings:  # type: ignore[override]
        """The noise schedule.

        Raises:
            DataError: neither the suite nor the folder says it.
        """
        given = self.settings.schedule
        if given is not None:
            return ScheduleSettings(**given.model_dump())
        found = self.folder.schedule
        if found is None:
            raise DataError(
                f"{self.folder.path} has no scheduler_config.json that says the noise schedule: give 'schedule' in "
                "the workload's settings"
            )
        return found

    @cached_property
    def sampler(self) -> SamplerSettings:
        """What the suite says, completed by the folder's scheduler.

        Raises:
            DataError: the two do not fit together.
        """
        given = {key: value for key, value in self.settings.sampler.model_dump().items() if value is not None}
        implied = self.folder.sampler
        if "name" in given and given["name"] != implied.get("name", given["name"]):
            implied = {}
        if given.get("spacing", implied.get("spacing")) != "uniform":
            implied = {key: value for key, value in implied.items() if key != "steps_offset"}
        place = f"the sampler of {self.name!r}, completed by its folder's scheduler"
        return validate(SamplerSettings, {**implied, **given}, lambda _: place, DataError)

    def describe(self) -> dict[str, Any]:
        """Return what identifies its images, with the sampler as it was completed."""
        description = super().describe()
        told = {key: value for key, value in description["settings"].items() if key not in ("sampler", "schedule")}
        return {**description, "settings": told, "sampler": self.sampler.model_dump(mode="json")}
