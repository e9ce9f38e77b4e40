"""A frozen denoiser behind ``torch.compile``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from qbench.devices import is_out_of_memory
from qbench.diffusion.structures import Context
from qbench.errors import StageError
from qbench.quant.model import QuantModel


class Compiled:
    """Calls a frozen model through ``torch.compile``.

    Each size of a batch is compiled for itself, at its first call: code that serves several sizes would depend on
    which of them came first, and images with it.

    Args:
        model: frozen.
        cuda_graphs: whether its kernels are started as one CUDA graph.
    """

    def __init__(self, model: QuantModel, cuda_graphs: bool = False) -> None:
        self._model = model
        self._cuda_graphs = cuda_graphs
        self._compiled = torch.compile(model.__call__, dynamic=False, mode="reduce-overhead" if cuda_graphs else None)
        self._known_sizes: set[int] = set()

    def __call__(
        self, x: Tensor, timesteps: Tensor, context: Context | None = None, steps: Tensor | None = None
    ) -> Tensor:
        """Estimate noise as the model does; see ``QuantModel.__call__``.

        Raises:
            StageError: it cannot be compiled here.
        """
        if not self._known_sizes:
            # Grids look once at their zero point, and code that asks the host for a number is compiled in two parts.
            self._model(x[:1], timesteps[:1], {name: each[:1] for name, each in (context or {}).items()}, _rows(steps))
        if self._cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            estimate: Tensor = self._compiled(x, timesteps, context, steps)
        except TorchDynamoException as error:
            if is_out_of_memory(error):
                raise
            raise StageError(
                f"torch.compile failed on the denoiser ({_reason(error)}): it needs a C++ compiler on a CPU and "
                "Triton on CUDA; or leave --compile out"
            ) from error
        self._known_sizes.add(len(x))
        # A graph writes every output to the same place, and samplers keep some.
        return estimate.clone() if self._cuda_graphs else estimate


def _rows(steps: Tensor | None) -> Tensor | None:
    return None if steps is None else steps[:1]


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The first line of what a backend raised may name the backend alone.
    return " ".join(lines[:2])[:300] or type(error).__name__
