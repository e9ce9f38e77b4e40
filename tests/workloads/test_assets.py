from dataclasses import dataclass
from pathlib import Path

import pytest

from qbench.errors import DataError
from qbench.workloads.address import Address
from qbench.workloads.assets import Asset, ByHand


def silent(done: int, total: int | None) -> None:
    pass


@dataclass(frozen=True)
class Unwritable:
    origin = "nowhere"
    folder = None

    def find(self) -> Path | None:
        return None

    def complaint(self) -> str:
        return "it is missing"

    def fetch(self, report: object) -> str:
        raise PermissionError(13, "Permission denied", "/some/cache")


def test_what_is_missing_is_told_with_its_size_and_the_command(caches: Path):
    asset = Asset("LDM-4", Address("https://example.org/lsun.zip", member="model.ckpt"), 2_400_000_000)
    assert asset.find() is None
    assert asset.is_fetchable
    with pytest.raises(DataError) as refused:
        asset.require()
    assert str(refused.value) == (
        f"LDM-4: {caches}/downloads/example.org/lsun.zip.contents/model.ckpt is missing; `qbench fetch SUITE` gets it "
        "from https://example.org/lsun.zip (2.4 GB)"
    )
    with pytest.raises(DataError, match="; `qbench fetch mine` gets it"):
        asset.require("`qbench fetch mine`")


def test_what_is_there_is_given(tmp_path: Path):
    (tmp_path / "images").mkdir()
    asset = Asset("images", ByHand(tmp_path / "images", "put images there"))
    assert asset.require() == asset.find() == tmp_path / "images"
    assert asset.fetch(silent) == ""


@pytest.mark.parametrize("named", [True, False])
def test_what_nobody_can_fetch_says_what_to_put_where(tmp_path: Path, named: bool):
    path = tmp_path / "images" if named else None
    asset = Asset("images of LSUN", ByHand(path, "put the images of lsun.cs.princeton.edu there"))
    where = f"{path} is missing" if named else "no place is named"
    expected = f"{where}: put the images of lsun.cs.princeton.edu there"
    assert not asset.is_fetchable
    with pytest.raises(DataError, match=f"^images of LSUN: {expected}$"):
        asset.require()
    with pytest.raises(DataError, match=f"^{expected}$"):
        asset.fetch(silent)


def test_a_folder_that_cannot_be_written_is_one_sentence():
    with pytest.raises(DataError, match=r"^weights cannot be fetched: /some/cache Permission denied$"):
        Asset("weights", Unwritable()).fetch(silent)
