import subprocess
import sys
from pathlib import Path

import pytest

from qbench.errors import SettingsError
from qbench.settings import validate
from qbench.workloads.reference_settings import COCO, LSUN, PLACES, ReferenceSettings, resolved


@pytest.mark.parametrize("place", PLACES)
def test_a_relative_path_starts_from_the_suite(place: str, tmp_path: Path) -> None:
    found = resolved(ReferenceSettings(**{place: "data/real"}), tmp_path)
    assert found.place == (place, tmp_path / "data" / "real")
    assert resolved(found, Path("/elsewhere")) == found


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolved(ReferenceSettings(images="~/real"), Path("/elsewhere")).images == str(tmp_path / "real")


def test_nothing_given_stays_nothing(tmp_path: Path) -> None:
    assert resolved(ReferenceSettings(), tmp_path).place is None


def test_two_places_contradict_each_other() -> None:
    with pytest.raises(SettingsError) as caught:
        validate(ReferenceSettings, {"images": "a", "lmdb": "b"}, lambda _: "here")
    assert str(caught.value) == "here: images and lmdb are given: say in one way only what the real images are"


def test_no_path_is_in_a_description() -> None:
    described = ReferenceSettings(images="/home/me/real", limit=5).model_dump(mode="json")
    assert described == ReferenceSettings(images="/mnt/real", limit=5).model_dump(mode="json")
    assert described != ReferenceSettings(lmdb="/mnt/real", limit=5).model_dump(mode="json")
    assert ReferenceSettings(images="/mnt/real").model_dump()["images"] == "/mnt/real"


def test_the_published_preprocessings() -> None:
    assert LSUN.model_dump() == {"crop": "center", "size": 256, "filter": "bicubic"}
    assert COCO.model_dump() == {"crop": "center", "size": 512, "filter": "bicubic"}


def test_nothing_heavy_is_imported() -> None:
    code = "import qbench.workloads.reference_settings, sys; print({'torch', 'PIL', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
