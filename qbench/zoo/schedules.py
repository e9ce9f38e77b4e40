"""The noise schedules of the latent stand-ins: those of the models that they stand for."""

from qbench.diffusion.sampler_settings import ScheduleSettings

LSUN_BEDROOMS = ScheduleSettings(beta_start=0.0015, beta_end=0.0195, betas="scaled_linear")
LSUN_CHURCHES = ScheduleSettings(beta_start=0.0015, beta_end=0.0155, betas="scaled_linear")
STABLE_DIFFUSION = ScheduleSettings(beta_start=0.00085, beta_end=0.012, betas="scaled_linear")
