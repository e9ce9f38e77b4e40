"""Calibration data, as methods are given it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.quant.model import QuantModel

DEFAULT_CACHE_BYTES = 4 * 2**30


@dataclass(frozen=True)
class CalibrationData:
    """What the full-precision sampler passed through, as a method asked for it.

    Attributes:
        x: float32 [count, *latent shape].
        timesteps: int64 [count].
        step_indices: int64 [count]; 0 is the noise end.
        batch_size: rows that fit the device at a time.
        report: to be called with the share of the whole work that was done since the last call; all make 1.
        context: what the denoiser is conditioned on, row by row.
        seed: for what is drawn at random on the way.
        cache_bytes: how much of the network's running state may be kept on the device; what is more goes to files.
        scratch: folder for those files; None is the system's.
        calls: how often the sampler calls the denoiser, each call at a step of its own; 0 where nobody said.
        guidance_scale: of classifier-free guidance. Where it is not 1, rows come in pairs, the one with its caption
            first, the unconditional one behind it.
    """

    x: Tensor
    timesteps: Tensor
    step_indices: Tensor
    batch_size: int
    report: Callable[[float], None]
    context: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0
    cache_bytes: int = DEFAULT_CACHE_BYTES
    scratch: Path | None = None
    calls: int = 0
    guidance_scale: float = 1.0

    def __len__(self) -> int:
        return len(self.x)

    def run_through(self, model: QuantModel) -> None:
        """Run a model over all of it, for what the model's observers see."""
        from qbench.quant.model import run_over

        run_over(model, self)

    def rows(self, indices: Tensor) -> CalibrationData:
        """Return some of the rows."""
        context = {name: tensor[indices] for name, tensor in self.context.items()}
        return replace(
            self,
            x=self.x[indices],
            timesteps=self.timesteps[indices],
            step_indices=self.step_indices[indices],
            context=context,
        )

    def for_share(self, share: float) -> CalibrationData:
        """Return the same data for a part of the work that makes up a share of the whole."""
        return replace(self, report=lambda done: self.report(share * done))
