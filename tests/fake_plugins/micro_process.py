"""The command line in a process of its own that has torch imported already; see ``start`` in conftest.py."""

import os
import sys
from collections.abc import Mapping, Sequence


def run(arguments: Sequence[str], folder: str, environment: Mapping[str, str], log: str) -> None:
    """Run ``qbench`` in a folder; standard error goes to a file, standard output beside it."""
    import torch

    os.setpgid(0, 0)  # as a shell does, so that Ctrl-C reaches this process and those it starts
    torch.set_num_threads(1)
    for descriptor, path in ((1, f"{log}.out"), (2, log)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = ["qbench", *arguments]
    from qbench.cli.main import main

    main()
