import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from qbench.errors import DataError
from qbench.workloads.download import ATTEMPTS
from qbench.workloads.hub_folder import HubFolder, select

FILES = {
    "model_index.json": b"{}",
    "unet/config.json": b'{"sample_size": 8}',
    "unet/diffusion_pytorch_model.safetensors": bytes(range(256)) * 20,
    "unet/diffusion_pytorch_model.bin": b"a pickle",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half of it",
    "README.md": b"about it",
}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
PATTERNS = ("model_index.json", "unet/config.json", f"{WEIGHTS}|unet/diffusion_pytorch_model.bin")
PATH = "/some/model/resolve/{}/" + WEIGHTS


def silent(done: int, total: int | None) -> None:
    pass


@pytest.fixture
def files(server: Any) -> dict[str, bytes]:
    """What the hub has of the repository ``some/model``."""
    server.repositories["some/model"] = dict(FILES)
    return server.repositories["some/model"]  # type: ignore[no-any-return]


@pytest.fixture
def folder(files: dict[str, bytes]) -> HubFolder:
    return HubFolder("some/model", "main", PATTERNS)


@pytest.fixture
def asked(server: Any) -> Any:
    """Return a function that tells which parts of the weights were asked for."""
    from micro_server import COMMIT

    return lambda: server.ranges(PATH.format(COMMIT))


def held(found: Path | None) -> dict[str, bytes]:
    assert found is not None
    return {path.relative_to(found).as_posix(): path.read_bytes() for path in found.rglob("*") if path.is_file()}


def test_a_snapshot_holds_what_was_asked_for(folder: HubFolder):
    assert folder.find() is None
    told: list[tuple[int, int | None]] = []
    folder.fetch(lambda *amounts: told.append(amounts))
    wanted = ("model_index.json", "unet/config.json", WEIGHTS)
    assert held(folder.find()) == {name: FILES[name] for name in wanted}
    total = sum(len(FILES[name]) for name in wanted)
    assert told[-1] == (total, total)


def test_huggingface_hub_finds_it_too(folder: HubFolder):
    folder.fetch(silent)
    found = folder.find()
    assert found is not None
    kept = huggingface_hub.snapshot_download("some/model", allow_patterns=["unet/*.json"], local_files_only=True)
    assert Path(kept) == found
    assert huggingface_hub.try_to_load_from_cache("some/model", WEIGHTS) == str(found / WEIGHTS)
    (repository,) = huggingface_hub.scan_cache_dir(found.parents[2]).repos
    assert (repository.repo_id, repository.nb_files) == ("some/model", 3)


def test_it_finds_what_huggingface_hub_fetched(folder: HubFolder, server: Any):
    for name in ("model_index.json", "unet/config.json"):
        huggingface_hub.hf_hub_download("some/model", name)
    assert folder.find() is None
    huggingface_hub.hf_hub_download("some/model", WEIGHTS)
    assert set(held(folder.find())) == {"model_index.json", "unet/config.json", WEIGHTS}
    server.gone()
    folder.fetch(silent)
    assert server.requests == []


def test_a_commit_is_a_revision(files: dict[str, bytes]):
    from micro_server import COMMIT

    folder = HubFolder("some/model", COMMIT, PATTERNS)
    folder.fetch(silent)
    found = folder.find()
    assert found is not None
    assert found.name == COMMIT
    assert not (found.parents[1] / "refs").exists()


def test_what_breaks_off_goes_on_in_the_next_run(folder: HubFolder, server: Any, asked: Any):
    folder_without_weights = HubFolder("some/model", "main", PATTERNS[:2])
    folder_without_weights.fetch(silent)
    server.breaks[:] = [3000, *[0] * ATTEMPTS]
    with pytest.raises(DataError, match=r"broke off .* 3\.0 kB of it are kept, and the same command goes on"):
        folder.fetch(silent)
    assert folder.find() is None
    server.breaks.clear()
    server.gone()
    folder.fetch(silent)
    assert held(folder.find())[WEIGHTS] == FILES[WEIGHTS]
    assert asked() == ["bytes=3000-"]


def test_ctrl_c_leaves_nothing_half_usable(folder: HubFolder, asked: Any):
    def press(done: int, total: int | None) -> None:
        if done > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.fetch(press)
    assert folder.find() is None
    folder.fetch(silent)
    assert held(folder.find())[WEIGHTS] == FILES[WEIGHTS]


@pytest.mark.parametrize("name", ["unet/config.json", WEIGHTS])
def test_a_wrong_checksum(folder: HubFolder, server: Any, name: str):
    """Of the size that was announced, so that nothing but the digest tells."""
    from micro_server import COMMIT, File

    server.files[f"/some/model/resolve/{COMMIT}/{name}"] = File(FILES[name][::-1])
    with pytest.raises(DataError, match=r"is damaged or another file: its (SHA-256|git's SHA-1) begins with"):
        folder.fetch(silent)
    assert folder.find() is None
    del server.files[f"/some/model/resolve/{COMMIT}/{name}"]
    folder.fetch(silent)
    assert held(folder.find())[name] == FILES[name]


def test_half_a_snapshot_is_none(folder: HubFolder, monkeypatch: pytest.MonkeyPatch):
    """A process may be killed while it makes links, also to files without which a snapshot might do."""
    optional = HubFolder("some/model", "main", ("model_index.json|", "unet/config.json|"))
    real = Path.symlink_to

    def killed(self: Path, target: str) -> None:
        if self.name == "config.json":
            raise KeyboardInterrupt
        real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "symlink_to", killed)
        with pytest.raises(KeyboardInterrupt):
            optional.fetch(silent)
    assert optional.find() is None
    optional.fetch(silent)
    assert set(held(optional.find())) == {"model_index.json", "unet/config.json"}


@pytest.mark.parametrize("harm", ["removed", "cut short", "blob removed"])
def test_what_was_harmed_is_not_found_and_comes_again(folder: HubFolder, harm: str):
    folder.fetch(silent)
    found = folder.find()
    assert found is not None
    weights = found / WEIGHTS
    if harm == "removed":
        weights.unlink()
    elif harm == "blob removed":
        weights.resolve().unlink()
    else:
        weights.resolve().write_bytes(FILES[WEIGHTS][:100])
    assert folder.find() is None
    folder.fetch(silent)
    assert held(folder.find())[WEIGHTS] == FILES[WEIGHTS]


def test_a_file_system_without_links(folder: HubFolder, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Path, target: str) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder.fetch(silent)
    assert held(folder.find())[WEIGHTS] == FILES[WEIGHTS]


class TestWhatIsWanted:
    def test_the_first_of_several_names(self, files: dict[str, bytes], folder: HubFolder):
        del files[WEIGHTS]
        folder.fetch(silent)
        assert set(held(folder.find())) == {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.bin"}

    def test_a_file_may_be_absent(self, files: dict[str, bytes]):
        HubFolder("some/model", "main", ("model_index.json", "vae/config.json|")).fetch(silent)

    def test_a_file_that_should_be_there(self, files: dict[str, bytes]):
        folder = HubFolder("some/model", "main", ("model_index.json", "vae/config.json"))
        with pytest.raises(DataError, match=r"some/model at main has no file vae/config\.json"):
            folder.fetch(silent)
        assert folder.find() is None

    def test_select(self):
        assert select(("a/*", "b|c", "d|", "e"), ["c", "a/1", "b", "a/2"]) == (["a/1", "a/2", "b"], ["e"])

    def test_an_index_brings_its_shards(self, files: dict[str, bytes], server: Any):
        index = "unet/model.safetensors.index.json"
        shards = [f"unet/model-{number}.safetensors" for number in (1, 2)]
        weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}
        files |= {index: json.dumps({"weight_map": weight_map}).encode(), shards[0]: b"one", shards[1]: b"two"}
        folder = HubFolder("some/model", "main", (index,))
        huggingface_hub.hf_hub_download("some/model", index)
        assert folder.find() is None
        folder.fetch(silent)
        assert set(held(folder.find())) == {index, *shards}
        del files[shards[1]]
        other = HubFolder("some/model", "main", (index, "README.md"))
        with pytest.raises(DataError, match=r"has no file unet/model-2\.safetensors, which it should"):
            other.fetch(silent)


class TestTheHubRefuses:
    def test_no_such_repository(self, server: Any):
        folder = HubFolder("no/such", "main", PATTERNS)
        with pytest.raises(DataError) as refused:
            folder.fetch(silent)
        assert str(refused.value) == (
            f"{server.url} has no repository 'no/such' that you may see: check the name, or log in with "
            "`hf auth login` if it is private"
        )
        assert folder.find() is None

    def test_no_such_revision(self, files: dict[str, bytes]):
        with pytest.raises(DataError, match=r"some/model has no revision 'v9'"):
            HubFolder("some/model", "v9", PATTERNS).fetch(silent)

    def test_no_name_of_a_repository(self, server: Any):
        with pytest.raises(DataError, match=r"'a/b/c' is no name of a repository"):
            HubFolder("a/b/c", "main", PATTERNS).fetch(silent)

    def test_it_may_be_forbidden(self, folder: HubFolder, server: Any, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(DataError, match="HF_HUB_OFFLINE forbids it"):
            folder.fetch(silent)
        assert server.requests == []

    def test_nobody_is_there(self, caches: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(DataError, match=r"^http://127.0.0.1:9 cannot be reached or used for some/model \(.*\)$"):
            HubFolder("some/model", "main", PATTERNS).fetch(silent)
        assert caplog.records == []

    def test_a_server_in_trouble(self, folder: HubFolder, server: Any):
        server.answers[:] = [500]
        with pytest.raises(DataError, match=r"cannot be reached or used for some/model \(.*500"):
            folder.fetch(silent)

    def test_names_that_lead_outside(self, files: dict[str, bytes], caches: Path):
        files["../../escaped"] = b"x"
        with pytest.raises(DataError, match="which would lie outside its folder"):
            HubFolder("some/model", "main", ("*",)).fetch(silent)

    def test_no_room(self, folder: HubFolder, monkeypatch: pytest.MonkeyPatch, server: Any, asked: Any):
        monkeypatch.setattr("qbench.workloads.disk_space.free_bytes", lambda path: 500_000_000)
        with pytest.raises(DataError, match=r"some/model needs 5\.1 kB in .* and 500\.0 MB are free"):
            folder.fetch(silent)
        assert asked() == []
        assert folder.find() is None


def test_a_token_is_shown_to_the_hub_only(
    folder: HubFolder, server: Any, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]
):
    from micro_server import COMMIT, File

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    digest = sha256(FILES[WEIGHTS]).hexdigest()
    server.files[PATH.format(COMMIT)] = File(location=f"{server.url}/cdn/{digest}")
    server.files[f"/cdn/{digest}"] = File(FILES[WEIGHTS])
    folder.fetch(silent)
    shown = {path: headers.get("Authorization") for _, path, headers in server.requests}
    assert shown[PATH.format(COMMIT)] == "Bearer hf_secret"
    assert shown[f"/cdn/{digest}"] is None
