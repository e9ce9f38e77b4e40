import json
from pathlib import Path
from typing import Any

import diffusers
import pytest

from qbench.diffusion.sampler_settings import SamplerSettings
from qbench.errors import DataError
from qbench.workloads.configurations import LDM_BEDROOMS, LDM_CHURCHES, STABLE_DIFFUSION_V1
from qbench.workloads.schedule_file import SAMPLERS, implied_sampler, read_schedule


def write(folder: Path, **content: Any) -> Path:
    path = folder / "scheduler_config.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("family", [LDM_BEDROOMS, LDM_CHURCHES, STABLE_DIFFUSION_V1])
def test_the_published_schedules(family: Any, tmp_path: Path) -> None:
    path = write(tmp_path, **family.scheduler)
    schedule = read_schedule(path)
    assert schedule.betas == "scaled_linear"
    assert (schedule.beta_start, schedule.beta_end) == (family.scheduler["beta_start"], family.scheduler["beta_end"])
    name = "plms" if family is STABLE_DIFFUSION_V1 else "ddim"
    assert implied_sampler(path) == {"name": name, "spacing": "uniform", "steps_offset": 1, "final_alpha": "first"}
    SamplerSettings(steps=20, **implied_sampler(path))


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_left_out_is_diffusers_default(name: str, tmp_path: Path) -> None:
    """A file with everything written out says the same as an empty one."""
    getattr(diffusers, name)().save_pretrained(tmp_path)
    complete = tmp_path / "scheduler_config.json"
    (tmp_path / "short").mkdir()
    short = write(tmp_path / "short", _class_name=name)
    assert implied_sampler(complete) == implied_sampler(short)
    assert read_schedule(complete) == read_schedule(short)
    SamplerSettings(steps=20, **implied_sampler(complete))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            {"beta_schedule": "squaredcos_cap_v2"},
            "has beta_schedule 'squaredcos_cap_v2'; known are linear, scaled_linear",
        ),
        ({"prediction_type": "sample"}, "has prediction_type 'sample'; known are epsilon, v_prediction"),
        ({"trained_betas": [0.1]}, "switches on 'trained_betas'"),
        ({"rescale_betas_zero_snr": True}, "switches on 'rescale_betas_zero_snr'"),
        ({"beta_start": "x"}, "numbers that are no noise schedule"),
    ],
)
def test_schedules_that_are_not_followed(content: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_schedule(write(tmp_path, **content))
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [{}, {"_class_name": "HeunDiscreteScheduler"}, {"_class_name": "DDIMScheduler", "timestep_spacing": "x"}]
)
def test_samplers_that_are_not_known(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="; known are "):
        implied_sampler(write(tmp_path, **content))
