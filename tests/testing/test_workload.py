"""Each clause of the workloads' contract is broken by a workload that breaks nothing else."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.diffusion.codecs import Identity, PixelUnshuffle
from qbench.diffusion.structures import Structure
from qbench.errors import DataError
from qbench.testing import ContractViolation, check_workload
from qbench.testing.workload import CLAUSES
from qbench.workload import LoadedWorkload, ReferenceSet, Workload

IMPORT_ASIDE = {"import"}
"""What holds of a module of its own, and not of this one, which imports torch."""


class Two(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1)
        self.change = change
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, x: Tensor, timesteps: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (self.change(self.last(torch.tanh(self.first(x)))),)


class Good(Workload):
    title = "two convolutions"
    latent_shape = image_shape = (1, 8, 8)

    def weights(self) -> Mapping[str, str]:
        return {"two": "0" * 64}

    def load(self) -> LoadedWorkload:
        return LoadedWorkload(Two().eval(), Structure(("first", "last")), Identity())

    def reference(self, extractor: str, extractor_weights: Mapping[str, str]) -> ReferenceSet:
        raise DataError("no images")


class NoDigest(Good):
    def weights(self) -> Mapping[str, str]:
        return {"two": "latest"}


class InTraining(Good):
    def load(self) -> LoadedWorkload:
        return LoadedWorkload(Two(), Structure(("first", "last")), Identity())


class OtherCodec(Good):
    def load(self) -> LoadedWorkload:
        return LoadedWorkload(Two().eval(), Structure(("first", "last")), PixelUnshuffle(1))

    image_shape = (1, 16, 16)


class DrawsWeights(Good):
    def load(self) -> LoadedWorkload:
        module = Two().eval()
        module.first.weight.data = torch.randn(module.first.weight.shape)
        return LoadedWorkload(module, Structure(("first", "last")), Identity())


class LooksAtNeighbours(Good):
    def load(self) -> LoadedWorkload:
        return LoadedWorkload(Two(lambda x: x - x.mean(0)).eval(), Structure(("first", "last")), Identity())


class WrongName(Good):
    def load(self) -> LoadedWorkload:
        return LoadedWorkload(Two().eval(), Structure(("first", "conv_out")), Identity())


class SetsThreads(Good):
    def load(self) -> LoadedWorkload:
        torch.set_default_dtype(torch.float64)
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(False)
        return super().load()


def broken(workload: Any) -> tuple[set[str], str]:
    with pytest.raises(ContractViolation) as caught:
        check_workload(workload)
    return {violation.clause for violation in caught.value.violations} - IMPORT_ASIDE, str(caught.value)


def test_a_good_workload_breaks_nothing() -> None:
    assert broken(Good)[0] == set()


@pytest.mark.parametrize(
    ("workload", "clauses", "words"),
    [
        (NoDigest, {"weights"}, "'latest', which is no SHA-256"),
        (InTraining, {"loading"}, "a module in training mode"),
        (OtherCodec, {"loading"}, "and image_shape says [1, 16, 16]"),
        (DrawsWeights, {"repeatable"}, "loading it twice gives two denoisers"),
        (LooksAtNeighbours, {"batches"}, "the same row differs by"),
        (WrongName, {"structure"}, "names the first or last layer 'conv_out', which is not there"),
        (SetsThreads, {"process"}, "loading changes whether torch keeps gradients"),
    ],
)
def test_each_clause_is_broken_alone(workload: Any, clauses: set[str], words: str) -> None:
    found, text = broken(workload)
    assert found == clauses, text
    assert words in text
    assert torch.is_grad_enabled()


def test_the_shipped_pixel_model_keeps_the_contract() -> None:
    assert check_workload("tiny-ddim").passed == tuple(clause.name for clause in CLAUSES)
