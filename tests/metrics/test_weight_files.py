from collections.abc import Callable
from hashlib import sha256
from http.client import RemoteDisconnected
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from qbench.errors import DataError
from qbench.metrics.weight_files import WeightFile, checkpoint_folder, weight_path

CONTENT = b"weights, all of them"
DIGEST = sha256(CONTENT).hexdigest()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where checkpoints are kept; it does not exist yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., WeightFile]:
    """Return a function that puts a file where it can be fetched from without a network."""

    def put(content: bytes = CONTENT, digest: str = DIGEST[:8]) -> WeightFile:
        published = tmp_path / "published" / "network.pth"
        published.parent.mkdir()
        published.write_bytes(content)
        return WeightFile(published.as_uri(), digest)

    return put


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def urlopen(*arguments: object, **keywords: object) -> None:
        raise error

    monkeypatch.setattr("torch.hub.urlopen", urlopen)


@pytest.mark.parametrize("digest", [DIGEST[:8], DIGEST])
def test_what_is_missing_is_fetched_and_then_found(
    folder: Path, publish: Callable[..., WeightFile], monkeypatch: pytest.MonkeyPatch, digest: str
) -> None:
    file = publish(digest=digest)
    assert weight_path(file) == folder / "network.pth"
    fail_with(monkeypatch, AssertionError("it is there already"))
    assert weight_path(file).read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == ["network.pth"]


@pytest.mark.parametrize("content", [CONTENT[:-1], b"", b"<html>sign in first</html>"])
def test_a_damaged_file_is_refused_and_left_where_it_is(
    folder: Path, publish: Callable[..., WeightFile], content: bytes
) -> None:
    folder.mkdir(parents=True)
    (folder / "network.pth").write_bytes(content)
    with pytest.raises(DataError, match=r"network\.pth is damaged .* begins with .* delete it") as refused:
        weight_path(publish())
    assert str(folder / "network.pth") in str(refused.value)
    assert (folder / "network.pth").read_bytes() == content


@pytest.mark.parametrize("content", [CONTENT[:-1], b"<html>sign in first</html>"])
def test_something_else_than_was_published_never_gets_the_name(
    folder: Path, publish: Callable[..., WeightFile], content: bytes
) -> None:
    with pytest.raises(DataError, match=r"network\.pth is missing, and what file:.* gives is another file"):
        weight_path(publish(content))
    assert list(folder.iterdir()) == []


def test_every_digit_that_was_published_counts(folder: Path, publish: Callable[..., WeightFile]) -> None:
    last = "0" if DIGEST[-1] != "0" else "1"
    with pytest.raises(DataError, match="another file"):
        weight_path(publish(digest=DIGEST[:-1] + last))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError("Name or service not known"), "Name or service not known"),
        (TimeoutError("timed out"), "timed out"),
        (RemoteDisconnected("closed without a word"), "closed without a word"),
    ],
)
def test_without_a_network_it_says_where_the_file_goes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    fail_with(monkeypatch, error)
    with pytest.raises(DataError) as refused:
        weight_path(WeightFile("https://example.org/network.pth", DIGEST))
    assert str(refused.value) == (
        f"{folder / 'network.pth'} is missing and cannot be fetched from https://example.org/network.pth ({reason}): "
        "put the file there"
    )
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made(folder: Path, publish: Callable[..., WeightFile]) -> None:
    folder.parent.parent.write_text("a file is in the way")
    with pytest.raises(DataError, match=r"is missing and cannot be fetched .*Not a directory"):
        weight_path(publish())


@pytest.mark.parametrize(
    "variables",
    [
        {"TORCH_HOME": "/here"},
        {"TORCH_HOME": "~/there", "XDG_CACHE_HOME": "/cache"},
        {"XDG_CACHE_HOME": "/cache"},
        {"HOME": "/home/somebody"},
    ],
)
def test_the_folder_is_that_of_torch_hub(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert checkpoint_folder() == Path(torch.hub.get_dir()) / "checkpoints"
