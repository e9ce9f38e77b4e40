"""What a result says of how it was made."""

import torch

from qbench.environment import environment


def test_what_decides_the_last_digit_is_told():
    found = environment("cpu")
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability() != ""
    assert found["threads"] == torch.get_num_threads()
    assert found["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert (found["device"], found["device_name"]) == ("cpu", None)
