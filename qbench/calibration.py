"""What a method may ask to be calibrated on.

A request is a rule; the stage ``trajectory`` carries it out. Nothing is drawn here: each sample comes with one
uniform number of its own, and ``steps_of`` turns it into the steps that the sample is taken at. So the steps are a
pure function of seed and sample index.

Papers count time from the image end: with T sampling steps, x_T is noise and x_0 the finished image. Steps count
from the noise end: x_t is what the denoiser is given at step T - t.
"""

import math
from abc import ABC, abstractmethod
from statistics import NormalDist
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from qbench.settings import Settings

Source = Literal["sampler", "noise", "images"]
"""Where x_t comes from: the full-precision sampler, pure noise, or real images with noise on them."""

_KIND = "the kind of request"


class Request(Settings, ABC):
    """What every kind of request answers. A row of the data is one sample at one step.

    Attributes:
        source: where x_t comes from.
    """

    source: ClassVar[Source] = "sampler"
    kind: Annotated[str, Field(description=_KIND)]

    @property
    @abstractmethod
    def samples(self) -> int:
        """How many samples there are, each with noise of its own."""

    @abstractmethod
    def steps_of(self, draw: float, sampling_steps: int) -> list[int]:
        """Return the steps that a sample is taken at, ascending and without repetition; 0 is the noise end.

        Args:
            draw: the sample's own number, uniform in (0, 1).
            sampling_steps: steps of the sampler.
        """

    def size(self, sampling_steps: int) -> int:
        """Return how many rows the data will have."""
        return self.samples


class UniformSteps(Request):
    """x_t of the full-precision sampler at steps spaced evenly over the whole trajectory.

    Source: Q-Diffusion (arXiv 2302.04304), section 3.2: activation ranges drift over the steps, so calibrate on all.
    """

    kind: Annotated[Literal["uniform-steps"], Field(description=_KIND)] = "uniform-steps"
    steps: Annotated[int, Field(ge=1, description="sampling steps to take x_t at, at most all of them")] = 20
    per_step: Annotated[int, Field(ge=1, description="samples at each of those steps")] = 256

    @property
    def samples(self) -> int:
        """The same samples are taken at every step."""
        return self.per_step

    def step_indices(self, sampling_steps: int) -> list[int]:
        """Return which of ``sampling_steps`` steps are used, ascending and without repetition."""
        count = min(self.steps, sampling_steps)
        return [index * sampling_steps // count for index in range(count)]

    def steps_of(self, draw: float, sampling_steps: int) -> list[int]:
        """Return the same steps for every sample."""
        return self.step_indices(sampling_steps)

    def size(self, sampling_steps: int) -> int:
        """Return how many rows the data will have: all samples at all steps."""
        return len(self.step_indices(sampling_steps)) * self.per_step


class OneStepEach(Request):
    """A request that takes each sample at one step."""

    count: Annotated[int, Field(ge=1, description="samples, each taken at one step")] = 512

    @property
    def samples(self) -> int:
        """One for each row."""
        return self.count

    def steps_of(self, draw: float, sampling_steps: int) -> list[int]:
        """Return the one step."""
        return [self.step_of(draw, sampling_steps)]

    @abstractmethod
    def step_of(self, draw: float, sampling_steps: int) -> int:
        """Return the step that a sample is taken at, 0 to ``sampling_steps`` - 1."""


class SingleStep(OneStepEach):
    """x_t of the full-precision sampler at one step only, as an ablation.

    Source: PTQ4DM (arXiv 2211.15736), section 3.3.1, observation 2 and figure 4.
    """

    kind: Annotated[Literal["single-step"], Field(description=_KIND)] = "single-step"
    step: Annotated[
        Literal["first", "middle", "last"],
        Field(description="first is pure noise, last is the step that finishes the image"),
    ] = "last"

    def step_of(self, draw: float, sampling_steps: int) -> int:
        """Return the same step for every sample."""
        return {"first": 0, "middle": sampling_steps // 2, "last": sampling_steps - 1}[self.step]


class NormalSteps(OneStepEach):
    """x_t of the full-precision sampler, each sample at a time of its own, drawn from a normal distribution.

    Source: Normally Distributed Time-step Calibration of PTQ4DM (arXiv 2211.15736), section 3.3.2 and algorithm 1:
    draw t_i, round it down, clamp it, run the sampler from fresh noise down to t_i and keep x_{t_i}. The clamp of the
    paper is to [0, T]; x_0 is the finished image, which no denoiser is ever given, so here it is to [1, T], and
    whatever is drawn below 2 is taken at the last step.

    Mean and deviation are those of the released code (0.4 T both; the text of the paper has N(mu, T / 2), and does not
    say whether that is a variance). Otherwise this is the paper: read literally, the code keeps a sample after t_i + 1
    steps from the noise end and labels it with t_i from the image end; here x_t and its timestep belong together.
    """

    kind: Annotated[Literal["normal-steps"], Field(description=_KIND)] = "normal-steps"
    count: Annotated[int, Field(ge=1, description="samples, each taken at one step")] = 1024
    mean: Annotated[
        float, Field(ge=0, le=1, description="mean time as a share of the sampling steps; 0 is the image end")
    ] = 0.4
    std: Annotated[float, Field(gt=0, description="standard deviation of time as a share of the sampling steps")] = 0.4

    def step_of(self, draw: float, sampling_steps: int) -> int:
        """Return the step of the time at the normal distribution's quantile ``draw``."""
        time = math.floor(sampling_steps * (self.mean + self.std * NormalDist().inv_cdf(draw)))
        return sampling_steps - min(max(time, 1), sampling_steps)

    def probabilities(self, sampling_steps: int) -> list[float]:
        """Return the exact probability of each step, 0 (the noise end) to ``sampling_steps`` - 1."""

        def below(time: int) -> float:
            """Return the probability that the clamped time is less than ``time``."""
            if time <= 1 or time > sampling_steps:
                return float(time > sampling_steps)
            return 0.5 * (1 + math.erf((time / sampling_steps - self.mean) / (self.std * math.sqrt(2))))

        return [below(time + 1) - below(time) for time in range(sampling_steps, 0, -1)]


class GaussianInputs(OneStepEach):
    """Standard normal noise in place of x_t, at steps drawn uniformly from all sampling steps, as an ablation.

    Source: the baseline "noise samples" of PTQ4DM (arXiv 2211.15736), section 3.3.1, table 2.
    """

    source: ClassVar[Source] = "noise"
    kind: Annotated[Literal["gaussian-inputs"], Field(description=_KIND)] = "gaussian-inputs"

    def step_of(self, draw: float, sampling_steps: int) -> int:
        """Return a step, all equally likely."""
        return int(draw * sampling_steps)


class NoisedImages(OneStepEach):
    """Real images with noise, x_t from q(x_t | x_0), at steps drawn uniformly from all sampling steps.

    Source: the baseline "training-mimic" of PTQ4DM (arXiv 2211.15736), section 3.3.1, table 2. No image is used twice.
    """

    source: ClassVar[Source] = "images"
    kind: Annotated[Literal["noised-images"], Field(description=_KIND)] = "noised-images"

    def step_of(self, draw: float, sampling_steps: int) -> int:
        """Return a step, all equally likely."""
        return int(draw * sampling_steps)


CalibrationRequest = Annotated[
    UniformSteps | SingleStep | NormalSteps | GaussianInputs | NoisedImages, Field(discriminator="kind")
]
"""Any kind of request; as a setting, its ``kind`` tells which."""
