"""The card of an exported folder, for people."""

from __future__ import annotations

from qbench.export.schema import ExportInfo
from qbench.metrics.metric import Against
from qbench.records import Record

TEMPLATE = """\
---
library_name: diffusers
tags: [qbench, quantization, diffusion]
---
# {row}, {bits} by {label}

The model `{workload}` after post-training quantization with `{method}` to {bits}{boundary}, as the cell `{cell}`
of the suite `{suite}` was measured by qbench. The denoiser takes {size:.2f} MB packed{against}.{rest}

```python
import qbench

pipeline = qbench.load_quantized(".")  # this folder
{call}
```

{sampler}
Image `i` of a seed is the same whenever it is asked for: `indices=range(8)` gives the first images of the cell.

**Simulated.** Weights are stored at their bits and become floats when they are loaded; quantized values are computed
with in float32. The folder is small, but sampling is not faster and needs no less memory.

## Figures

{figures}

They are of {samples} images, seed {seed}; the cell's record says what each metric is compared with. The licence is that
of the original model.
"""


def card(info: ExportInfo, record: Record, weights_bytes: int) -> str:
    """Return the text of ``README.md``.

    Args:
        info: what the folder says of itself.
        record: of the cell.
        weights_bytes: of the packed denoiser.
    """
    cell, sampler = info.cell, info.sampler
    has_text = any(name.startswith("text_encoder/") for name in info.files)
    left_out = 0 if record.profile is None else len(record.profile.left_out)
    guidance = f", guidance {sampler.guidance_scale:g}" if sampler.guidance_scale != 1 else ""
    return TEMPLATE.format(
        row=cell.row,
        bits=cell.bits,
        label=cell.label,
        workload=cell.workload,
        method=cell.method,
        boundary="" if cell.boundary_bits is None else f" (first and last layer: {cell.boundary_bits} weight bits)",
        cell=f"{cell.row}.{cell.label}.{cell.bits}.s{cell.seed}",
        suite=cell.suite,
        size=weights_bytes / 1e6,
        against=f"; {left_out} layers or operands stay in full precision" if left_out else "",
        rest=" What is around it is in full precision." if len(_parts(info)) > 1 else "",
        call='image = pipeline("a caption", indices=[0]).images[0]'
        if has_text
        else "image = pipeline(indices=[0]).images[0]",
        sampler=f"Sampler: {sampler.name}, {sampler.steps} steps, eta {sampler.eta:g}{guidance}; no other is offered.",
        figures=_figures(record),
        samples=cell.samples,
        seed=cell.seed,
    )


def _parts(info: ExportInfo) -> set[str]:
    return {name.partition("/")[0] for name in info.files if "/" in name}


def _figures(record: Record) -> str:
    rows = ["| metric | value | against full precision |", "|---|---|---|"]
    for name, figure in record.figures.items():
        of_pairs = record.metrics[name].against == Against.FULL_PRECISION.value  # the figure is the difference itself
        delta = "" if figure.delta is None or of_pairs else f"{figure.delta:+.4g}"
        rows.append(f"| {name} | {figure.value:.4g} | {delta} |")
    return "\n".join(rows) if record.figures else "None was measured."
