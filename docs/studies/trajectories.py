"""Calibration data for the studies, from the shipped model."""

from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file

from qbench import plugins
from qbench.calibration import UniformSteps
from qbench.plugin import create
from qbench.quant import CalibrationData
from qbench.stages.stage import Runtime, Work
from qbench.stages.trajectory import FILE, Trajectory
from qbench.workload import Workload


def tiny_ddim() -> Workload:
    """Return the workload."""
    return create(plugins.WORKLOADS, "tiny-ddim", Workload, {}, str, ValueError)


def trajectory(workload: Workload, per_step: int, seed: int = 0) -> CalibrationData:
    """Return ``per_step`` samples of the full-precision trajectory at each of 20 steps, step after step."""
    with TemporaryDirectory() as folder:
        work = Work({}, Path(folder), Runtime(device="cpu"), lambda amount: None)
        Trajectory(workload, UniformSteps(per_step=per_step), seed=seed).compute(work)
        found = load_file(Path(folder) / FILE)
    return CalibrationData(found["x"], found["timestep"], found["step_index"], 125, lambda share: None, seed=seed)
