"""How a workload is sampled, as plain data: read without torch."""

from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from qbench.settings import Settings

SamplerName = Literal["ddim", "plms", "dpm-solver++", "euler"]
Spacing = Literal["uniform", "quad", "trailing", "linspace"]
Prediction = Literal["epsilon", "v_prediction"]
FinalAlpha = Literal["one", "first"]


class GrowingSettings(Settings):
    """Settings that got more fields after the first digests were taken of them.

    A field that came later is left out of the dump while it has its default: what could be said before still has the
    digest that it had, and artefacts and records of it stay valid.
    """

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = dump(self)
        later = _later_defaults(type(self))
        return {name: value for name, value in dumped.items() if name not in later or value != later[name]}


@cache
def _later_defaults(settings: type[BaseModel]) -> dict[str, Any]:
    return {
        name: field.default
        for name, field in settings.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("later")
    }


def _later(description: str, **limits: Any) -> Any:
    """Describe a field that came later."""
    return Field(description=description, json_schema_extra={"later": True}, **limits)


class ScheduleSettings(GrowingSettings):
    """The noise schedule that a denoiser was trained with, and what it predicts."""

    train_steps: Annotated[int, Field(ge=1, description="length T of the training schedule", examples=[1000])] = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1, description="first beta", examples=[0.0015])] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1, description="last beta", examples=[0.0195])] = 0.02
    betas: Annotated[
        Literal["linear", "scaled_linear"],
        _later(
            "what is linear between them: beta, or its square root (which the code of latent diffusion calls linear)",
            examples=["scaled_linear"],
        ),
    ] = "linear"
    prediction: Annotated[
        Prediction,
        _later(
            "what the denoiser predicts: the noise, or v = sqrt(alpha) noise - sqrt(1 - alpha) x_0",
            examples=["v_prediction"],
        ),
    ] = "epsilon"


class SamplerSettings(GrowingSettings):
    """The sampler and its steps."""

    name: Annotated[SamplerName, Field(description="the sampler", examples=["plms"])] = "ddim"
    steps: Annotated[int, Field(ge=1, le=1000, description="sampling steps", examples=[20])] = 50
    eta: Annotated[
        float,
        Field(ge=0, le=1, description="0 is deterministic DDIM, 1 has the variance of DDPM; ddim only", examples=[1.0]),
    ] = 0.0
    spacing: Annotated[
        Spacing,
        _later(
            "how steps are spaced: uniform (diffusers' leading), quad (ddim only), trailing, linspace",
            examples=["quad"],
        ),
    ] = "uniform"
    steps_offset: Annotated[
        int, _later("added to every timestep; with spacing uniform only", ge=0, le=999, examples=[1])
    ] = 0
    final_alpha: Annotated[
        FinalAlpha,
        _later("signal level behind the last step: one, or that of the first training timestep", examples=["first"]),
    ] = "one"
    guidance_scale: Annotated[float, _later("scale of classifier-free guidance; 1 is none", ge=0, examples=[7.5])] = 1.0

    @property
    def calls(self) -> int:
        """How often the denoiser is called for one sample; guidance, which doubles the rows of a call, is not in it."""
        return self.steps + (self.name == "plms" and self.steps > 1)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.name != "ddim" and self.eta != 0:
            raise ValueError(
                f"the sampler {self.name!r} adds no noise, so eta {self.eta:g} means nothing to it: leave it 0"
            )
        if self.name != "ddim" and self.spacing == "quad":
            raise ValueError(
                f"the sampler {self.name!r} cannot work with spacing 'quad', which repeats timesteps: "
                "take 'uniform', 'trailing' or 'linspace', or the sampler 'ddim'"
            )
        if self.spacing != "uniform" and self.steps_offset != 0:
            raise ValueError(
                f"steps_offset goes with spacing 'uniform' only, and the spacing is {self.spacing!r}: leave it 0"
            )
        return self
