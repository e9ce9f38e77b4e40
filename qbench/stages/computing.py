"""What every stage is computed under, whoever computes it."""

from __future__ import annotations

from qbench.errors import StageError
from qbench.stages.stage import Stage, Work


def compute(stage: Stage, work: Work) -> None:
    """Compute a stage as its runtime asks for; executors call this, not ``stage.compute``.

    TF32 is off unless it was asked for, a denoiser that the stage has no use for is let go of, and where memory gives
    out for good the user reads a sentence.

    Raises:
        StageError: there is no honest result, or too little memory.
        DataError: something from outside is missing.
        QbenchError: the device has not what is asked of it.
    """
    from qbench.devices import is_out_of_memory
    from qbench.stages.precision import tensor_float_32

    device = work.runtime.torch_device()
    work.kept.begin(stage.kind)
    if work.runtime.tf32:
        work.made_with["tf32"] = True
    try:
        with tensor_float_32(work.runtime.tf32):
            stage.compute(work)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise StageError(
            f"{device} has too little memory for this stage ({' '.join(str(error).split())[:200]}): "
            "make room on it, or take another --device (`qbench doctor` lists them)"
        ) from error
