"""How the training command shows progress: a bar on a terminal, plain lines in a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qbench.zoo.loop import Moment


@contextmanager
def progress(name: str, iterations: int, lines_every: int = 200) -> Iterator[Callable[[Moment], None]]:
    """Shows a run on standard error while it goes on.

    Args:
        name: What is trained.
        iterations: Length of the run.
        lines_every: Iterations between the lines of a log.

    Yields:
        What the training loop calls after every iteration.
    """
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(name, total=iterations, loss="")
            yield lambda moment: bar.update(task, completed=moment.iteration, loss=f"loss {moment.loss:.4f}")
    else:
        yield _lines(name, iterations, lines_every)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))


def _lines(name: str, iterations: int, every: int) -> Callable[[Moment], None]:
    def show(moment: Moment) -> None:
        if moment.iteration % every and moment.iteration != iterations:
            return
        remaining = moment.seconds / moment.iteration * (iterations - moment.iteration)
        sys.stderr.write(
            f"{name} {moment.iteration}/{iterations} loss {moment.loss:.4f} "
            f"{moment.images / moment.seconds:.0f} images/s, {remaining / 60:.0f} min left\n"
        )
        sys.stderr.flush()

    return show
