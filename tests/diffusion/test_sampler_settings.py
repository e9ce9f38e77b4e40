"""What settings of sampler and schedule may say, and that what was said before still has its digest."""

import subprocess
import sys
from typing import Any

import pytest

from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.errors import SettingsError
from qbench.settings import validate


@pytest.mark.parametrize("mode", ["json", "python"])
def test_defaults_are_dumped_as_they_were_before_there_were_more_fields(mode: Any) -> None:
    assert SamplerSettings().model_dump(mode=mode) == {"name": "ddim", "steps": 50, "eta": 0.0}
    assert ScheduleSettings().model_dump(mode=mode) == {"train_steps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
    assert SamplerSettings(spacing="uniform", guidance_scale=1).model_dump_json() == SamplerSettings().model_dump_json()


@pytest.mark.parametrize(
    "changed",
    [{"spacing": "quad"}, {"steps_offset": 1}, {"final_alpha": "first"}, {"guidance_scale": 7.5}, {"name": "plms"}],
    ids=lambda each: next(iter(each)),
)
def test_whatever_is_not_default_is_dumped_and_read_again(changed: dict[str, Any]) -> None:
    dumped = SamplerSettings(**changed).model_dump(mode="json")
    assert dumped == {"name": "ddim", "steps": 50, "eta": 0.0} | changed
    assert SamplerSettings.model_validate(dumped) == SamplerSettings(**changed)


def test_a_schedule_tells_what_is_not_default() -> None:
    schedule = ScheduleSettings(betas="scaled_linear", prediction="v_prediction")
    assert schedule.model_dump().items() >= {"betas": "scaled_linear", "prediction": "v_prediction"}.items()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"name": "plms", "eta": 0.5}, "the sampler 'plms' adds no noise, so eta 0.5 means nothing to it: leave it 0"),
        ({"name": "euler", "eta": 1}, "the sampler 'euler' adds no noise, so eta 1 means nothing to it: leave it 0"),
        (
            {"name": "dpm-solver++", "spacing": "quad"},
            r"'dpm-solver\+\+' cannot work with spacing 'quad', which repeats",
        ),
        ({"spacing": "trailing", "steps_offset": 1}, "steps_offset goes with spacing 'uniform' only"),
        ({"guidance_scale": -1}, "greater than or equal to 0"),
        ({"name": "dpm"}, r"'ddim', 'plms', 'dpm-solver\+\+' or 'euler'"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_one_sentence(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        validate(SamplerSettings, raw, lambda location: "sampler")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "steps", "calls"),
    [("ddim", 50, 50), ("plms", 50, 51), ("plms", 2, 3), ("plms", 1, 1), ("euler", 30, 30), ("dpm-solver++", 1, 1)],
)
def test_calls_are_those_of_the_sampler(name: Any, steps: int, calls: int) -> None:
    from qbench.diffusion.samplers import make_sampler

    settings = SamplerSettings(name=name, steps=steps)
    assert settings.calls == len(make_sampler(ScheduleSettings(), settings)) == calls


def test_settings_are_read_without_torch() -> None:
    code = "import sys, qbench.diffusion.sampler_settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
