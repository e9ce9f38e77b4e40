"""What a scheduler's configuration says of noise schedule and sampler."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qbench.diffusion.sampler_settings import ScheduleSettings
from qbench.errors import DataError
from qbench.workloads.json_file import read_json

SAMPLERS: Mapping[str, tuple[str, str]] = {
    "DDIMScheduler": ("ddim", "leading"),
    "DDPMScheduler": ("ddim", "leading"),
    "PNDMScheduler": ("plms", "leading"),
    "DPMSolverMultistepScheduler": ("dpm-solver++", "linspace"),
    "EulerDiscreteScheduler": ("euler", "linspace"),
}
"""The sampler that each scheduler of diffusers stands for, and the spacing of its steps where none is written."""

SET_ALPHA_TO_ONE: Mapping[str, bool] = {"DDIMScheduler": True, "DDPMScheduler": True, "PNDMScheduler": False}
"""The default of ``set_alpha_to_one``; the other schedulers have ``final_sigmas_type`` for it."""

SPACINGS = {"leading": "uniform", "trailing": "trailing", "linspace": "linspace"}
BETAS = ("linear", "scaled_linear")
PREDICTIONS = ("epsilon", "v_prediction")
UNFOLLOWED = ("trained_betas", "rescale_betas_zero_snr", "use_flow_sigmas", "use_karras_sigmas")


def read_schedule(path: Path) -> ScheduleSettings:
    """Read the noise schedule of a ``scheduler_config.json``; what it leaves out has diffusers' default.

    Raises:
        DataError: it cannot be read, or is a schedule that the samplers do not follow.
    """
    content = read_json(path)
    betas = _one_of(path, content, "beta_schedule", "linear", BETAS)
    prediction = _one_of(path, content, "prediction_type", "epsilon", PREDICTIONS)
    for option in UNFOLLOWED:
        if content.get(option):
            raise DataError(f"{path} switches on {option!r}, which the samplers of qbench do not follow")
    try:
        return ScheduleSettings(
            train_steps=content.get("num_train_timesteps", 1000),
            beta_start=content.get("beta_start", 1e-4),
            beta_end=content.get("beta_end", 0.02),
            betas=betas,
            prediction=prediction,
        )
    except ValueError as error:
        raise DataError(f"{path} holds numbers that are no noise schedule") from error


def implied_sampler(path: Path) -> dict[str, Any]:
    """Return the settings of the sampler that a ``scheduler_config.json`` stands for, the number of steps excepted.

    Clipping of the estimated image (``clip_sample``) is not among them, as no sampler here clips.

    Returns:
        Values of SamplerSettings by name: ``name``, ``spacing``, ``final_alpha`` and, with uniform spacing,
        ``steps_offset``.

    Raises:
        DataError: it cannot be read, or no sampler of qbench does what it says.
    """
    content = read_json(path)
    scheduler = _one_of(path, content, "_class_name", "", tuple(SAMPLERS))
    name, spacing = SAMPLERS[scheduler]
    spacing = SPACINGS[_one_of(path, content, "timestep_spacing", spacing, tuple(SPACINGS))]
    settings: dict[str, Any] = {"name": name, "spacing": spacing}
    if spacing == "uniform":
        settings["steps_offset"] = content.get("steps_offset", 0)
    if scheduler in SET_ALPHA_TO_ONE:
        to_one = content.get("set_alpha_to_one", SET_ALPHA_TO_ONE[scheduler])
    else:
        to_one = content.get("final_sigmas_type", "zero") == "zero"
    return {**settings, "final_alpha": "one" if to_one else "first"}


def _one_of(path: Path, content: Mapping[str, Any], key: str, default: str, known: tuple[str, ...]) -> Any:
    value = content.get(key, default)
    if value not in known:
        raise DataError(f"{path} has {key} {value!r}; known are {', '.join(known)}")
    return value
