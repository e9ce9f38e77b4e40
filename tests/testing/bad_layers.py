"""A layer in the place of a convolution that looks at all images of a batch."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from qbench.quant import QuantLayer, Replacement, Tap


class Batchwise(Replacement):
    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.weight_bits = bits
        self.register_buffer("weight", weight.detach().clone())

    def forward(self, x: Tensor, tap: Tap, bias: Tensor | None) -> Tensor:
        output: Tensor = functional.conv2d(tap(x - x.mean(0)), self.weight, bias, padding=1)
        return output

    def config(self) -> dict[str, Any]:
        return {"kind": "batchwise", "bits": self.weight_bits}

    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.weight}

    @classmethod
    def from_tensors(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], layer: QuantLayer) -> "Batchwise":
        return cls(tensors["weight"], config["bits"])
