"""How a workload is sampled, as plain data: read without torch."""

from typing import Annotated, Literal

from pydantic import Field

from qbench.settings import Settings


class ScheduleSettings(Settings):
    """The noise schedule that a denoiser was trained with."""

    train_steps: Annotated[int, Field(ge=1, description="length T of the training schedule")] = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1, description="first beta")] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1, description="last beta")] = 0.02


class SamplerSettings(Settings):
    """The sampler and its steps."""

    name: Annotated[Literal["ddim"], Field(description="the sampler")] = "ddim"
    steps: Annotated[int, Field(ge=1, le=1000, description="sampling steps")] = 50
    eta: Annotated[float, Field(ge=0, le=1, description="0 is deterministic DDIM, 1 has the variance of DDPM")] = 0.0
