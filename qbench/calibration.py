"""What a method may ask to be calibrated on."""

from typing import Annotated, Literal

from pydantic import Field

from qbench.settings import Settings


class UniformSteps(Settings):
    """x_t of the full-precision sampler at steps spaced evenly over the whole trajectory.

    Source: Q-Diffusion (arXiv 2302.04304), section 3.2: activation ranges drift over the steps, so calibrate on all.
    """

    kind: Annotated[Literal["uniform-steps"], Field(description="the kind of request")] = "uniform-steps"
    steps: Annotated[int, Field(ge=1, description="sampling steps to take x_t at, at most all of them")] = 20
    per_step: Annotated[int, Field(ge=1, description="samples at each of those steps")] = 256

    def step_indices(self, sampling_steps: int) -> list[int]:
        """Return which of ``sampling_steps`` steps are used, ascending and without repetition."""
        count = min(self.steps, sampling_steps)
        return [index * sampling_steps // count for index in range(count)]


CalibrationRequest = UniformSteps
