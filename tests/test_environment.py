"""What a result says of how it was made."""

import subprocess
import sys

import pytest
import torch

from qbench.environment import environment


def test_what_decides_the_last_digit_is_told():
    found = environment("cpu")
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability() != ""
    assert found["threads"] == torch.get_num_threads()
    assert found["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert (found["device"], found["device_name"]) == ("cpu", None)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak of the process before cannot be told apart")
def test_the_peak_is_of_this_process_and_not_of_the_one_that_started_it() -> None:
    """A worker of a large process would otherwise be recorded as large itself."""
    large = """
import subprocess, sys
block = bytearray(400_000_000)
block[::4096] = b"x" * len(block[::4096])
small = "from qbench.environment import peak_memory_mb; print(peak_memory_mb())"
from qbench.environment import peak_memory_mb
print(peak_memory_mb(), flush=True)
subprocess.run([sys.executable, "-c", small], check=True)
"""
    done = subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True)
    started, child = map(float, done.stdout.split())
    assert started > 400
    assert 1 < child < 300
