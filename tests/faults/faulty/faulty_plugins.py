"""Methods that misbehave in ways that those of ``micro_plugins`` do not, and a workload that is converted."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from micro_plugins import Micro, Round

from qbench.method import BitWidth, CalibrationData
from qbench.workload import LoadedWorkload

if TYPE_CHECKING:
    from qbench.quant import QuantModel


class Converted(Micro):
    title = "four layers whose gain is converted first"
    needs_conversion = True

    def convert(self, folder: Path) -> None:
        (folder / "gain.txt").write_text(str(self.settings.gain))

    def load_converted(self, folder: Path) -> LoadedWorkload:
        return self.with_gain(float((folder / "gain.txt").read_text()))


class Hangs(Round):
    title = "never comes back"

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        time.sleep(3600)


class HangsDeaf(Round):
    title = "never comes back from native code, which no exception and no other thread interrupts"

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        re.match(r"(a+)+$", "a" * 60 + "b")


class NoMemory(Round):
    title = "asks for more memory than there is"

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        raise MemoryError("cannot allocate 1 TB")


class NoDeviceMemory(Round):
    title = "asks for more memory than the device has"

    def quantize_weights(self, model: QuantModel, data: CalibrationData | None, bits: BitWidth) -> None:
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TB")
