"""Settings of a training run: everything that decides the resulting weights."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class TrainingSettings:
    """Two runs with equal settings on the same kind of machine end with the same bytes (on the CPU)."""

    name: str
    """Which model: a key of `qbench.zoo.train.TRAININGS`."""
    iterations: int
    """Length of the run; the learning rate's schedule depends on it."""
    batch: int
    """Images per iteration."""
    learning_rate: float
    """Highest learning rate, reached after the warm-up."""
    warmup: int
    """Iterations over which the learning rate rises linearly; afterwards it falls as a half cosine to 0."""
    weight_decay: float
    """AdamW's decoupled weight decay."""
    ema_decay: float
    """Decay of the running average of the weights, which is what ships."""
    clip: float
    """Largest norm of the gradient."""
    seed: int = 0
    """Seed of initialization, batches, noise and timesteps."""
    threads: int = 1
    """CPU threads; another number sums in another order."""
    device: Device = "cpu"
    """Where the arithmetic is done."""
    revision: int = 1
    """Raised when the code changes what a run computes."""

    def rate(self, iteration: int) -> float:
        """Learning rate of one iteration, counted from 0."""
        warm = min(1.0, (iteration + 1) / max(self.warmup, 1))
        return self.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * iteration / self.iterations))

    def averaging(self, iteration: int) -> float:
        """Decay of the running average after one iteration; the first ones count less."""
        return min(self.ema_decay, (1.0 + iteration) / (10.0 + iteration))

    def described(self) -> dict[str, str | int | float]:
        """The settings as plain values, e.g. for a checkpoint or a card."""
        return dataclasses.asdict(self)
