"""Options that several commands share, and how their values are read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from qbench.store import Store
    from qbench.suite import Suite

SuiteArgument = Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of an installed one.")]
ResultsOption = Annotated[
    Path, typer.Option("--results", help="Folder of results; a suite's own lie in DIR/<suite>.", metavar="DIR")
]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="Folder of cached work; $QBENCH_STORE or the user's cache by default.", metavar="DIR"),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="KEY=VALUE",
        help="Only cells with this workload, method, bits or seed; repeated: any of them.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the suite, written as in YAML: samples=100. KEY+=VALUE adds to a list: "
        "methods+=my-method.",
    ),
]
StandinOption = Annotated[
    bool,
    typer.Option(
        "--standin", help="Tiny models in place of the real ones, scaled down as the suite says: runs anywhere."
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size", min=1, help="Images at a time; by default 125 on a CPU and as many as fit on an accelerator."
    ),
]
TF32Option = Annotated[
    bool, typer.Option("--tf32", help="Allow TF32, faster and less exact products on NVIDIA's devices.")
]
ChannelsLastOption = Annotated[
    bool, typer.Option("--channels-last", help="Keep the channels of a pixel together while sampling.")
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile the denoiser for sampling, which takes a minute at first.")
]
CudaGraphsOption = Annotated[
    bool, typer.Option("--cuda-graphs", help="Start the compiled denoiser as one CUDA graph; implies --compile.")
]
StageLimitOption = Annotated[
    str | None,
    typer.Option(
        "--stage-limit",
        envvar="QBENCH_STAGE_LIMIT",
        metavar="DURATION",
        help="How long a stage may take, such as 90s, 30m or 2h; one that hangs is ended, and the others go on.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

RESULTS = Path("results")
SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""Of the units that a duration is written in."""
LONGEST_SECONDS = 1e9


def load(name: str, only: list[str] | None, overrides: list[str] | None, standin: bool = False) -> "Suite":
    """Return the suite a command line asks for.

    Raises:
        SuiteError: the suite or a value of ``--set`` is wrong, or no cell is left.
        typer.BadParameter: an option is not of the form KEY=VALUE.
    """
    from qbench.cell import KEYS
    from qbench.suite import find_suite, load_suite
    from qbench.yaml_file import parse_value

    values: dict[str, Any] = {}
    for key, text in pairs("--set", overrides):
        value = parse_value(text)
        if key.endswith("+"):
            values[key] = [*values.get(key, []), *(value if isinstance(value, list) else [value])]
        elif key in values:
            raise typer.BadParameter(f"--set {key}: given twice")
        else:
            values[key] = value
    selection: dict[str, list[str]] = {}
    for key, text in pairs("--only", only):
        if key not in KEYS:
            raise typer.BadParameter(f"--only {key}: cells are selected by {', '.join(KEYS)}")
        selection.setdefault(key, []).append(text)
    suite = load_suite(find_suite(name), values, standin)
    return suite.only(selection) if selection else suite


def open_store(path: Path | None, read_only: bool = False) -> "Store":
    """Return the store a command line asks for; to look at only, it need not exist.

    Raises:
        StoreError: it cannot be used.
    """
    from qbench.store import Store, default_store_path

    return Store(path or default_store_path(), read_only)


def seconds(option: str, text: str) -> float:
    """Return a duration: a number of seconds, or one with its unit.

    Raises:
        typer.BadParameter: it is none, or nothing happens in it.
    """
    number = text.strip().rstrip("smhd")
    unit = SECONDS.get(text.strip()[len(number) :])
    try:
        found = float(number) * unit if unit else 0.0
    except ValueError:
        found = 0.0
    if not 0.0 < found <= LONGEST_SECONDS:
        raise typer.BadParameter(f"{option} {text}: write a duration such as 90s, 30m or 2h")
    return found


def pairs(option: str, texts: list[str] | None) -> list[tuple[str, str]]:
    """Return keys and values of an option that may be repeated.

    Raises:
        typer.BadParameter: one is not of the form KEY=VALUE.
    """
    found = []
    for text in texts or []:
        key, sign, value = text.partition("=")
        if not sign or not key or not value:
            raise typer.BadParameter(f"{option} {text}: write KEY=VALUE")
        found.append((key, value))
    return found
