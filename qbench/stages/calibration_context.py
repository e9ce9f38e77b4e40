"""What calibration data are conditioned on: each caption's context once in the file, row by row for methods.

A guided denoiser is calibrated on what it is called with. So every row comes twice, with its caption's context and
with the unconditional one, as in Q-Diffusion for Stable Diffusion (arXiv 2302.04304, section 4.1; 3,200 and 3,200).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qbench.diffusion.conditioning import UNCONDITIONAL, Conditioning
from qbench.diffusion.guidance import context_of

if TYPE_CHECKING:
    from qbench.diffusion.structures import Context

CAPTION = "caption"
UNCONDITIONAL_ROW = "unconditional"
TABLE = "context."


def context_table(
    conditioning: Conditioning, captions: Sequence[str], is_guided: bool, batch_size: int
) -> dict[str, Tensor]:
    """Return the tensors of the file that say what its rows are conditioned on.

    Args:
        conditioning: the workload's.
        captions: of each row.
        is_guided: whether the unconditional context is due too.
        batch_size: captions at a time.

    Returns:
        ``caption`` int64 [rows], the row of the table that each row is conditioned on; the tables
        ``context.<name>`` [different captions, ...]; and, where it is guided, ``unconditional`` int64 [1], the row of
        the table that holds the unconditional context.
    """
    different = list(dict.fromkeys([*captions, *([UNCONDITIONAL] if is_guided else [])]))
    place = {caption: row for row, caption in enumerate(different)}
    parts = [
        context_of(conditioning, different[start : start + batch_size], torch.device("cpu"))
        for start in range(0, len(different), batch_size)
    ]
    found = {TABLE + name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    found[CAPTION] = torch.tensor([place[caption] for caption in captions])
    if is_guided:
        found[UNCONDITIONAL_ROW] = torch.tensor([place[UNCONDITIONAL]])
    return found


def conditioned_rows(found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Context]:
    """Return the rows of calibration data as methods are given them, and their context.

    Args:
        found: what is in the file.

    Returns:
        ``x``, ``step_index`` and ``timestep``; where the denoiser is guided each row twice, with its caption first, so
        that any few rows in sequence hold both halves. And the context row by row, empty without captions.
    """
    rows = {name: found[name] for name in ("x", "step_index", "timestep")}
    if CAPTION not in found:
        return rows, {}
    caption = found[CAPTION]
    if UNCONDITIONAL_ROW in found:
        rows = {name: tensor.repeat_interleave(2, dim=0) for name, tensor in rows.items()}
        caption = torch.stack([caption, found[UNCONDITIONAL_ROW].expand_as(caption)], dim=1).flatten()
    context = {name.removeprefix(TABLE): tensor[caption] for name, tensor in found.items() if name.startswith(TABLE)}
    return rows, context
