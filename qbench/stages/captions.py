"""What stages say of the captions that a workload's samples are conditioned on."""

from collections.abc import Callable, Sequence

from qbench.identity import digest
from qbench.workload import Workload


def described(workload: Workload, captions: Callable[[range], Sequence[str]], indices: range) -> dict[str, str]:
    """Return the digest of some samples' captions for a stage's description; nothing where there are none.

    Args:
        workload: whose samples.
        captions: its ``captions`` or ``calibration_captions``.
        indices: the samples.

    Raises:
        DataError: the captions are missing.
    """
    return {"captions": digest({"captions": list(captions(indices))})} if workload.has_captions else {}
