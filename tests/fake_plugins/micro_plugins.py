"""A workload of 500 parameters with methods, metrics and an extractor, good ones and bad ones.

The tests install this as a distribution of its own (see ``plugin_folder`` in conftest.py), so that it comes through
real entry points. Environment variables let a test stop a process at a known place and see what it computes:

- ``MICRO_PAUSE`` names the place: ``weights``, ``activations``, ``features`` or ``score``, or ``denoiser-12`` for a
  batch of 12 images;
- ``MICRO_MARKER`` names a file that is made as soon as the place is reached, and that the test removes to let the
  process go on;
- ``MICRO_TRACE`` names a file to which every place that is reached is added, after the id of the process.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from qbench.errors import DataError
from qbench.method import BitWidth, CalibrationData, CalibrationRequest, Method, Settings, Target, UniformSteps
from qbench.metrics.extractor import Extractor
from qbench.metrics.metric import PIXELS, Against, Gaussian, Need, RowsMetric, SumMetric
from qbench.workload import (
    LoadedWorkload,
    ReferenceSet,
    SamplerSettings,
    ScheduleSettings,
    Workload,
    WorkloadSettings,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from qbench.diffusion.step_correction import StepCorrection
    from qbench.metrics.extractor import Extract
    from qbench.metrics.metric import Array, Sums
    from qbench.metrics.rows import Rows
    from qbench.quant import QuantModel

REFERENCE = Path(__file__).with_name("reference.safetensors")
"""Statistics of the feature ``pooled``, written by whoever installs the distribution."""


def pause(place: str) -> None:
    """Stop here until the marker is removed or the process is killed, if the environment says so."""
    if "MICRO_TRACE" in os.environ:
        with Path(os.environ["MICRO_TRACE"]).open("a") as file:
            file.write(f"{os.getpid()} {place}\n")
    if os.environ.get("MICRO_PAUSE") != place:
        return
    del os.environ["MICRO_PAUSE"]
    marker = Path(os.environ["MICRO_MARKER"])
    marker.touch()
    while marker.exists():
        time.sleep(0.01)


class MicroSettings(WorkloadSettings):
    sampler: Annotated[SamplerSettings, Field(description="how images are sampled")] = SamplerSettings(steps=4)
    gain: Annotated[float, Field(gt=0, description="factor on all weights")] = 1.0


class Micro(Workload):
    settings_class = MicroSettings
    title = "four layers with fixed random weights"
    latent_shape = (1, 8, 8)
    image_shape = (1, 8, 8)
    schedule = ScheduleSettings(train_steps=40, beta_start=1e-4, beta_end=0.02)
    parameters = 237
    settings: MicroSettings

    def weights(self) -> Mapping[str, str]:
        return {"micro": sha256(b"micro").hexdigest()}

    def load(self) -> LoadedWorkload:
        return self.with_gain(self.settings.gain)

    @staticmethod
    def with_gain(gain: float) -> LoadedWorkload:
        from micro_network import Identity, MicroDenoiser

        from qbench.diffusion.structures import Structure

        return LoadedWorkload(
            MicroDenoiser(gain, pause), Structure(boundary_layers=("conv_in", "conv_out")), Identity()
        )

    def reference(self, extractor: str, extractor_weights: Mapping[str, str]) -> ReferenceSet:
        if extractor != "micro-pool":
            raise DataError(f"the workload {self.name!r} has reference statistics for the extractor 'micro-pool' only")
        return ReferenceSet("micro images", 1000, sha256(REFERENCE.read_bytes()).hexdigest(), str(REFERENCE))


class MicroPool(Extractor):
    """The means of the four quarters."""

    title = "means of the quarters"
    features = ("pooled",)
    image_shapes = ((1, 8, 8),)

    def weights(self) -> Mapping[str, str]:
        return {"micro-pool": sha256(b"micro-pool").hexdigest()}

    def load(self, device: torch.device) -> Extract:
        from torch.nn import functional

        def extract(images: Tensor, captions: Sequence[str] | None) -> Mapping[str, Tensor]:
            pause("features")
            return {"pooled": functional.avg_pool2d(images.to(device).float() / 255, 4).flatten(1)}

        return extract


class MicroDistance(SumMetric):
    """The squared distance of means."""

    title = "squared distance between mean features"
    need = Need("micro-pool", "pooled")
    against = Against.REFERENCE
    direction = "lower"
    protocol = "8x8 images, means of the quarters"

    def sums(self, rows: Array, paired: Array | None) -> Sums:
        return {"count": np.asarray(float(len(rows))), "sum": rows.sum(0)}

    def compute(self, sums: Sums, reference: Gaussian | None) -> float:
        pause("score")
        assert reference is not None
        return float(((sums["sum"] / sums["count"] - reference.mean) ** 2).sum())


class MicroContrastSettings(Settings):
    power: Annotated[int, Field(ge=1, description="the moment")] = 2


class MicroContrast(RowsMetric):
    """A moment of the pixels."""

    settings_class = MicroContrastSettings
    title = "moment of the pixels"
    need = PIXELS
    against = Against.NOTHING
    direction = "higher"
    protocol = "uint8-rounded 8x8 images"
    settings: MicroContrastSettings

    def compute(self, samples: Rows, against: Rows | None) -> float:
        return float((abs(samples[:]) ** self.settings.power).mean())


class NotANumber(MicroContrast):
    """Has no value for anything."""

    title = "never finite"

    def compute(self, samples: Rows, against: Rows | None) -> float:
        return float("nan")


class RoundSettings(Settings):
    calibration: Annotated[UniformSteps, Field(description="what ranges are taken from")] = UniformSteps(
        steps=2, per_step=8
    )
    share: Annotated[float, Field(gt=0, le=1, description="share of the range that is kept")] = 1.0


class Round(Method):
    """Per-channel extremes, made narrower by a setting."""

    settings_class = RoundSettings
    title = "rounding, for tests"
    presets: ClassVar = {"tight": {"share": 0.75}, "few": {"calibration": {"per_step": 4}}}
    settings: RoundSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        return self.settings.calibration if target == "activations" else None

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        from qbench import quant

        pause("weights")
        for layer in model.layers.values():
            if layer.bits.weights < 32:
                layer.weight_grid = quant.min_max_per_channel(layer.weight * self.settings.share, layer.bits.weights)

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        from qbench import quant

        pause("activations")
        assert data is not None
        ranges = {name: quant.RunningMinMax() for name in model.taps}
        with model.observing(ranges.__getitem__):
            data.run_through(model)
        for name, tap in model.taps.items():
            if tap.bits < 32:
                tap.grid = ranges[name].grid(tap.bits)


class CorrectedSettings(RoundSettings):
    part: Annotated[float, Field(description="how much of slope and bias is taken back")] = 1.0
    forgotten: Annotated[int, Field(ge=0, description="steps at the end that the correction has no row for")] = 0


class Corrected(Round):
    """Takes slope and bias of its error back at each step."""

    settings_class = CorrectedSettings
    title = "rounding, corrected by the sampler"
    corrects = True
    correction_settings = ("part", "forgotten")
    settings: CorrectedSettings

    def calibration(self, target: Target) -> CalibrationRequest | None:
        return UniformSteps(steps=100, per_step=8) if target == "correction" else super().calibration(target)

    def correct(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> StepCorrection:
        import torch

        from qbench import quant
        from qbench.diffusion.step_correction import StepCorrection

        pause("correction")
        assert data is not None
        pairs = list(quant.estimate_pairs(model, data))
        full, rounded, steps = (
            torch.cat([getattr(pair, name) for pair in pairs])
            for name in ("full_precision", "quantized", "step_indices")
        )
        slope, bias = torch.zeros(data.calls), torch.zeros(data.calls, full.shape[1])
        for step in range(data.calls):
            of_step, error = full[steps == step], (rounded - full)[steps == step]
            slope[step] = ((of_step - of_step.mean()) * error).mean() / of_step.var()
            bias[step] = (error - slope[step] * of_step).mean((0, 2, 3))
        kept = slice(0, data.calls - self.settings.forgotten)
        return StepCorrection(self.settings.part * slope[kept], self.settings.part * bias[kept], 0 * slope[kept])


class Replacing(Round):
    """Rounds as the other does, and has some layers computed by a module of its own."""

    title = "rounding, with tables in the place of layers"

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        from micro_layers import table

        super().quantize_weights(model, data, bits)
        for name in ("conv_mid", "time"):
            model.layers[name].replace(table(model.layers[name], model.layers[name].bits.weights))


class ReplacingLate(Replacing):
    """Replaces a layer when it is too late."""

    title = "tables too late"

    def quantize_activations(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        from micro_layers import table

        super().quantize_activations(model, data, bits)
        model.layers["conv_in"].replace(table(model.layers["conv_in"], 4))


class OtherRound(Round):
    """Asks for the same calibration, and is another method."""

    title = "rounding by another name"


class Entangled(Round):
    """Its weights depend on the bits of activations."""

    title = "weights that know of activations"
    weights_depend_on_activations = True


class FourOnly(Round):
    """Claims four weight bits."""

    title = "four weight bits only"
    weight_bits = (4,)


class Raises(Round):
    title = "raises"

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        raise RuntimeError("no luck with <script>alert(1)</script> | these\nweights")


class Exits(Round):
    title = "ends the process"

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        sys.exit(7)


class Dies(Round):
    title = "takes its process with it, as a crash in native code does"

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        pause("death")
        os._exit(3)


class NaNOutput(Round):
    """Its model puts out NaN."""

    title = "NaN in the output"

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        super().quantize_weights(model, data, bits)
        layer = model.layers["conv_out"]
        assert layer.bias is not None
        layer.bias.data.fill_(float("nan"))


class NaNGrid(Round):
    """Its grids are no grids."""

    title = "NaN in the grid"

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        from qbench.quant import AffineGrid

        for layer in model.layers.values():
            low = layer.weight.amin() * float("nan")
            layer.weight_grid = AffineGrid(layer.bits.weights, low, low)
