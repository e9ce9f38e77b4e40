"""The samplers by their names, and what one needs to use them."""

from qbench.diffusion.ddim import DDIM
from qbench.diffusion.noise_source import NoiseSource
from qbench.diffusion.plms import PLMS
from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.diffusion.sampling import Denoise, Run, Sampler, StepContext, sample
from qbench.diffusion.step_correction import StepCorrection

__all__ = ["Denoise", "NoiseSource", "Run", "Sampler", "StepContext", "StepCorrection", "make_sampler", "sample"]


def make_sampler(schedule: ScheduleSettings, settings: SamplerSettings) -> Sampler:
    """Return the sampler that settings name.

    Raises:
        StageError: its steps do not fit the schedule.
    """
    if settings.name == "ddim":
        return DDIM(schedule, settings)
    if settings.name == "plms":
        return PLMS(schedule, settings)
    from qbench.diffusion.diffusers_schedulers import DiffusersSampler  # diffusers takes its time to be imported

    return DiffusersSampler(schedule, settings)
