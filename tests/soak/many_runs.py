"""Run a suite many times in this process, each time with an empty store, and print what is held after each."""

import contextlib
import functools
import gc
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

BOUNDED = type(functools.lru_cache(len))
SAID = io.StringIO()
"""One stream for all runs: click remembers every stream that it ever wrote to."""


def empty_bounded_caches() -> None:
    """What a cache with a bound holds is decided by the bound and not by how often something ran."""
    for each in gc.get_objects():
        if type(each) is BOUNDED and each.cache_parameters()["maxsize"] is not None:
            each.cache_clear()


def held() -> dict[str, int]:
    """What this process holds that it cannot let go of: kilobytes, open files, threads, objects and temporary files."""
    empty_bounded_caches()
    gc.collect()
    kilobytes = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    tasks = Path("/proc/self/task")  # knows the threads of libraries too
    return {
        "kilobytes": int(kilobytes.stdout),
        "files": len(os.listdir("/dev/fd")),
        "threads": len(list(tasks.iterdir())) if tasks.exists() else threading.active_count(),
        "objects": len(gc.get_objects()),
        "temporary": sum(len(folders) + len(files) for _, folders, files in os.walk(tempfile.gettempdir())),
    }


def run_once(suite: str) -> None:
    """Run a suite with an empty store and no results; what it says is shown only if it fails."""
    from qbench.cli.main import main

    for name in ("store", "results"):
        shutil.rmtree(name, ignore_errors=True)
    sys.argv = ["qbench", "run", suite, "--store", "store", "--results", "results", "--device", "cpu"]
    SAID.seek(0)
    SAID.truncate()
    code: object = 0
    with contextlib.redirect_stdout(SAID), contextlib.redirect_stderr(SAID):
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
    if code:
        sys.exit(SAID.getvalue())


if __name__ == "__main__":
    suite, runs = sys.argv[1], int(sys.argv[2])
    for _ in range(runs):
        run_once(suite)
        print(json.dumps(held()), flush=True)
