"""``check_workload``: a workload under its contract."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from qbench.bits import FULL_PRECISION
from qbench.diffusion.structures import State
from qbench.quant import QuantModel
from qbench.testing.plugin_clauses import SHARED
from qbench.testing.process_state import restored, stir
from qbench.testing.report import Clause, Report, examine
from qbench.testing.subject import Subject, find_subject
from qbench.workload import LoadedWorkload, Workload

ROWS = 4
CLOSE = 1e-4
"""How far images of one batch size may be from those of another."""


class WorkloadSubject(Subject[Workload]):
    """A workload with its settings, loaded."""

    @cached_property
    def changed(self) -> list[str]:
        """What of the process's state loading changes."""
        with restored() as changed:
            self.loaded = self.make().load()
        return changed

    @cached_property
    def loaded(self) -> LoadedWorkload:
        """The workload in memory."""
        with restored():
            stir(0)
            return self.make().load()

    @property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """Noise and timesteps for a few rows."""
        workload = self.make()
        x = torch.randn(ROWS, *workload.latent_shape, generator=torch.Generator().manual_seed(0))
        return x, torch.linspace(workload.schedule.train_steps - 1, 1, ROWS).long()

    @torch.no_grad()
    def estimate(self, loaded: LoadedWorkload, x: Tensor, timesteps: Tensor) -> Tensor:
        """Return the estimated noise."""
        context = {} if loaded.conditioning is None else loaded.conditioning([""] * len(x))
        return loaded.structure.call(loaded.module, x, timesteps, context)


def _weight_faults(subject: WorkloadSubject) -> Iterator[str]:
    weights = subject.make().weights()
    if not weights:
        yield "weights() is empty, so that other weights would give the same digest"
    for name, digest in weights.items():
        if not re.fullmatch(r"[0-9a-f]{64}", str(digest)):
            yield f"weights() gives {name!r} the digest {digest!r}, which is no SHA-256"


def _loading_faults(subject: WorkloadSubject) -> Iterator[str]:
    loaded, workload = subject.loaded, subject.make()
    if loaded.module.training:
        yield "load() returns a module in training mode"
    x, timesteps = subject.inputs
    estimate = subject.estimate(loaded, x, timesteps)
    if estimate.shape != x.shape:
        yield f"the denoiser makes {list(estimate.shape)} of {list(x.shape)}"
    elif not bool(estimate.isfinite().all()):
        yield "the denoiser puts out NaN or infinity"
    with torch.no_grad():
        images = loaded.codec.decode(x)
    if tuple(images.shape[1:]) != tuple(workload.image_shape):
        yield f"decoding gives images {list(images.shape[1:])}, and image_shape says {list(workload.image_shape)}"
        return
    with torch.no_grad():
        latents = loaded.codec.encode(images.clamp(-1, 1))
    if latents.shape != x.shape:
        yield f"encoding gives latents {list(latents.shape[1:])}, and latent_shape says {list(x.shape[1:])}"


def _repetition_faults(subject: WorkloadSubject) -> Iterator[str]:
    x, timesteps = subject.inputs
    with restored():
        stir(1)
        again = subject.make().load()
    if not torch.equal(subject.estimate(subject.loaded, x, timesteps), subject.estimate(again, x, timesteps)):
        yield "loading it twice gives two denoisers"


def _batch_faults(subject: WorkloadSubject) -> Iterator[str]:
    x, timesteps = subject.inputs
    together = subject.estimate(subject.loaded, x, timesteps)
    alone = torch.cat([subject.estimate(subject.loaded, x[i : i + 1], timesteps[i : i + 1]) for i in range(ROWS)])
    difference = float((together - alone).abs().max() / together.abs().max())
    if difference > CLOSE:
        yield f"alone and in a batch, the same row differs by {difference:.2g} of the largest value"


def _structure_faults(subject: WorkloadSubject) -> Iterator[str]:
    with restored():
        loaded = subject.make().load()
    x, timesteps = subject.inputs
    plain = subject.estimate(loaded, x, timesteps)
    if loaded.structure.segments:
        context = {} if loaded.conditioning is None else loaded.conditioning([""] * len(x))
        with torch.no_grad():
            composed = loaded.structure.compose(loaded.module, State(x, timesteps, context=context))
        if not torch.equal(composed, plain):
            yield "its segments, one after the other, do not give what the denoiser gives"
    model = QuantModel(loaded.module.requires_grad_(False), loaded.structure, FULL_PRECISION, None)
    absent = [name for name in loaded.structure.boundary_layers if name not in model.layers]
    if absent:
        yield f"its structure names the first or last layer {absent[0]!r}, which is not there"
    if not torch.equal(subject.estimate(loaded, x, timesteps), plain):
        yield "wrapped for quantization and in full precision, the denoiser gives something else"


def _process_faults(subject: WorkloadSubject) -> Iterator[str]:
    for what in subject.changed:
        if not what.endswith("random numbers"):  # torch's layers draw weights when they are made, before any are read
            yield f"loading changes {what}"


CLAUSES: tuple[Clause[WorkloadSubject], ...] = (
    *SHARED,
    Clause("weights", "Return the SHA-256 of each weight file by its name, without loading any.", _weight_faults),
    Clause(
        "loading",
        "Let load() return the denoiser in eval(), and latent_shape and image_shape be those of its tensors.",
        _loading_faults,
        is_ground=True,
    ),
    Clause("repeatable", "Let weights come from files or from a generator with a fixed seed.", _repetition_faults),
    Clause("batches", "Let nothing reduce over the batch axis.", _batch_faults),
    Clause(
        "structure",
        "Let the structure name layers as named_modules() does, its segments compose the forward, and all parameters "
        "belong to convolutions, linear layers, norms and embeddings.",
        _structure_faults,
    ),
    Clause("process", "Use context managers, and set nothing global.", _process_faults),
)


def check_workload(workload: str | type[Workload], *, settings: Mapping[str, Any] | None = None) -> Report:
    """Examine a workload: what it says of itself, its denoiser, its first stage and its structure.

    What it needs must be at hand. Nothing is sampled, and reference images are not read.

    Args:
        workload: public id of an installed workload that is loaded by ``load``, or a class.
        settings: written as in a suite.

    Returns:
        The clauses that hold: all of them.

    Raises:
        ContractViolation: clauses are broken; an AssertionError that says which, how, and what to do.
        PluginError: nobody offers the workload, or it cannot be imported.
    """
    found = find_subject("workload", Workload, workload, settings)
    subject = WorkloadSubject(found.kind, found.entry, found.found, found.settings)
    return examine(found.title, CLAUSES, subject)
