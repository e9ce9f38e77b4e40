"""Hostile input, and the law that everything which reads it must keep.

The law: it works, or it is refused in one sentence that names the place. Nothing else is raised, nothing is written
beside the store and the results, no program is started, no address is asked, and nothing takes for ever.
"""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, configuration, given, settings
from hypothesis import strategies as st

from qbench.environment import peak_memory_mb
from qbench.errors import QbenchError

SECONDS = 60
"""What takes longer hangs; the machine may be busy."""
MORE_MB = 1500.0
"""By so much the peak of memory may rise while a law is tried, imports of libraries included."""
DEEP = "@deep@"
"""Stands in a tree for nesting that no writer of JSON or YAML would write; see ``nested``."""
TEXTS = (
    "", " ", ".", "..", "../x", "../../../../../../tmp/qbench-fuzz", "/tmp/qbench-fuzz", "/etc/passwd", "/", "~", "a/b",
    "a\\b", "a\0b", "\0", "\ud800", "x" * 10_000, "x/" * 5_000, "é" * 300, "\u202e\u2028", "\x1b[2J\r\n", "a\nb", "-",
    "--help", "nan", "1e999", "%s%n{0}${HOME}", "<script>alert(1)</script>", "*", "null", "W4A8", "micro", "round",
    "mse-to-fp", "1:60:60", "0001-01-01T00:00:00+12:00", DEEP,
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 3, 7, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 10**400, 0.5, -0.0, 1e308, 1e-320)
NO_NUMBERS = (float("nan"), float("inf"), float("-inf"))
Edit = tuple[str, int, Any]
FORBIDDEN = ("os.exec", "os.posix_spawn", "os.system", "pickle.find_class", "socket.connect", "subprocess.Popen")
"""What nothing that is read may lead to."""
OWN_CACHES = ("__pycache__", "torchinductor_", "matplotlib")
"""What Python, torch and matplotlib make when they are imported."""
WRITING = ("os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate")


class Hangs(BaseException):
    """Not an Exception: nobody who catches those may catch it."""


class Watch:
    """Hears of what this process does to files and to the world, while it is told to."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] | None = None
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event == "subprocess.Popen" and arguments[0] == "git":
            return  # which is asked for the state of the suite's checkout
        if event in FORBIDDEN:
            self.seen.append(f"{event} {arguments!r}"[:300])
        elif event in WRITING:
            places = arguments[:2] if event == "os.rename" else arguments[1:2] if "link" in event else arguments[:1]
            for each in places:
                self._write(event, each)
        elif event == "open":
            path, mode, flags = arguments
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
            if set(mode) & set("wax+") if isinstance(mode, str) else flags & writes:
                self._write(event, path)

    def _write(self, event: str, path: Any) -> None:
        if isinstance(path, int) or any(each in os.fsdecode(path) for each in OWN_CACHES):
            return
        place = os.path.realpath(os.fsdecode(path))
        if place != os.devnull and not any(
            place == each or place.startswith(each + os.sep) for each in self.allowed or ()
        ):
            self.seen.append(f"{event} {place}"[:300])

    @contextmanager
    def over(self, *allowed: Path) -> Iterator[None]:
        """Fail if anything is written beside some places, started, connected to or unpickled meanwhile."""
        self.seen, self.allowed = [], tuple(os.path.realpath(each) for each in allowed)
        try:
            yield
        finally:
            self.allowed = None
        assert self.seen == []


WATCH = Watch()


@pytest.fixture(scope="session", autouse=True)
def _hears_everything() -> None:
    """A hook that listens can never be taken back, so there is one for all."""
    sys.addaudithook(WATCH)


@pytest.fixture(scope="session", autouse=True)
def _leaves_nothing_in_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> None:
    configuration.set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))


@contextmanager
def _bounded() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hangs(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["few", pytest.param("many", marks=pytest.mark.slow)])
def fuzz(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Counter[str]]:
    """Return a function that tries a law on examples and counts what it answers, ``works`` and ``refused`` say.

    Its arguments: a function that prepares an example and returns what is then tried under the law, a strategy, how
    many examples there are every day and how many in the slow run, and where may be written. Examples are the same in
    every run, and nothing is remembered of them.
    """

    def run(
        prepare: Callable[[Any], Callable[[], str]],
        strategy: st.SearchStrategy[Any],
        few: int,
        many: int,
        *places: Path,
    ) -> Any:
        counts: Counter[str] = Counter()
        count = few if request.param == "few" else many

        @settings(
            max_examples=count,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def tried(example: Any) -> None:
            law = prepare(example)
            with _bounded(), WATCH.over(*places):
                answer = law()
            counts[answer] += 1

        peak = peak_memory_mb()
        tried()
        assert peak_memory_mb() - peak < MORE_MB
        print(f"{request.node.name}: {counts.total()} examples: {dict(counts)}")
        return counts

    return run


@pytest.fixture(scope="session")
def read() -> Callable[..., str]:
    """Return a function that tries to read something: it works, or is refused with the name of what is read."""

    def attempt(reader: Callable[..., Any], *arguments: Any, names: str) -> str:
        try:
            reader(*arguments)
        except QbenchError as error:
            told = str(error)
        else:
            return "works"
        assert names in told
        return "refused"

    return attempt


@pytest.fixture
def keeps_the_law(fake_plugins: Path, qbench: Callable[..., Any]) -> Callable[..., str]:
    """Return a function that runs a command, looks at how it ends, and says so."""

    def run(*words: object, names: str = "") -> str:
        answer = qbench(*words)
        assert answer.code in (0, 1, 2, 3), answer
        assert "Traceback" not in answer.err
        if not answer.err.startswith("qbench: "):
            return "usage" if answer.code == 2 else "works"
        assert answer.code == (2 if words[0] == "diff" else 1)
        assert answer.err.count("\n") == 1, answer.err
        assert names in answer.err
        return "refused"

    return run


@pytest.fixture
def nothing_beside(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """See that native code too has written nothing beside the current folder."""

    def listing() -> set[Path]:
        return {each for each in tmp_path.rglob("*") if not each.is_relative_to(Path.cwd())}

    before = listing()
    yield lambda: None
    assert listing() == before
    assert not Path("/tmp/qbench-fuzz").exists()


def _paths(tree: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield here
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _paths(value, (*here, key))
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from _paths(value, (*here, place))


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def _edited(tree: Any, edit: Edit) -> Any:
    kind, number, value = edit
    paths = list(_paths(tree))
    path = paths[number % len(paths)]
    if not path:
        return value if kind == "replace" and number % 7 == 0 else tree
    owner, key = _at(tree, path[:-1]), path[-1]
    if kind == "replace":
        owner[key] = value
    elif kind == "drop":
        del owner[key]
    elif kind == "wrap":
        owner[key] = [owner[key]] if number % 2 else {"name": owner[key]}
    elif kind == "twice" and isinstance(owner, list):
        owner.append(owner[key])
    elif kind == "move":
        owner[key] = deepcopy(_at(tree, paths[number // 3 % len(paths)]))
    elif isinstance(owner, dict):
        owner[value if isinstance(value, str) else str(value)] = owner.pop(key) if kind == "rename" else value
    return tree


def edited(tree: Any, edits: list[Edit]) -> Any:
    """Return a copy of plain data with some edits."""
    tree = deepcopy(tree)
    for edit in edits:
        tree = _edited(tree, edit)
    return tree


def _values() -> st.SearchStrategy[Any]:
    scalars = st.one_of(
        st.sampled_from(TEXTS), st.sampled_from(NUMBERS), st.sampled_from(NO_NUMBERS),
        st.sampled_from([None, True, False]), st.text(max_size=12), st.integers(), st.floats(),
    )  # fmt: skip
    return st.one_of(
        scalars, st.lists(scalars, max_size=3), st.dictionaries(st.sampled_from(TEXTS), scalars, max_size=2)
    )


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["replace", "replace", "replace", "drop", "wrap", "twice", "move", "rename", "add"]),
        st.integers(0, 100_000),
        _values(),
    ),
    min_size=1,
    max_size=3,
)
BYTE_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "drop", "repeat"]), st.integers(0, 2**31), st.binary(max_size=8)
    ),
    min_size=1,
    max_size=4,
)


def edited_bytes(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    """Return bytes with some edits."""
    for kind, number, piece in edits:
        place = number % (len(content) + 1)
        if kind == "flip" and place < len(content):
            content = content[:place] + bytes([content[place] ^ (1 << number % 8)]) + content[place + 1 :]
        elif kind == "cut":
            content = content[:place]
        elif kind == "insert":
            content = content[:place] + piece + content[place:]
        elif kind == "drop":
            content = content[:place] + content[place + 1 + number % 5 :]
        elif kind == "repeat":
            content = content[:place] + content[place : place + 40] * 3 + content[place + 40 :]
    return content


def nested(text: str, depth: int = 5_000) -> str:
    """Return JSON or YAML with very deep nesting in place of its sign."""
    return text.replace(f'"{DEEP}"', "[" * depth + "]" * depth).replace(f"'{DEEP}'", "[" * 200 + "]" * 200)


@pytest.fixture(scope="session")
def hostile() -> Any:
    """Strategies and what applies them: ``edits`` for plain data, ``byte_edits`` for files."""
    from types import SimpleNamespace

    return SimpleNamespace(
        edits=EDITS,
        edited=edited,
        byte_edits=BYTE_EDITS,
        edited_bytes=edited_bytes,
        texts=st.one_of(st.sampled_from(TEXTS), st.text(max_size=40)),
        values=_values(),
        nested=nested,
    )
