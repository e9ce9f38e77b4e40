from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import DataError
from qbench.suite import Suite, load_suite
from qbench.suite_assets import check_assets, missing_assets, suite_wants
from qbench.workloads.assets import Address, Asset, ByHand

NETWORK = Asset("the network", Address("https://example.org/network.zip", member="model.ckpt"), 2_400_000_000)
IMAGES = Asset("real images", ByHand(None, "name a folder of them as 'reference.images'"))
FEATURES = Asset("weights of features", Address("https://example.org/features.pth"))


@pytest.fixture
def suite(micro_suite: Callable[..., Path]) -> Suite:
    return load_suite(micro_suite())


@pytest.fixture
def need(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that has the workload and the extractor need something."""
    import micro_plugins

    def have(workload: tuple[Asset, ...] = (), extractor: tuple[Asset, ...] = ()) -> None:
        monkeypatch.setattr(micro_plugins.Micro, "assets", lambda self: workload)
        monkeypatch.setattr(micro_plugins.MicroPool, "assets", lambda self: extractor)

    return have


def test_nothing_is_needed(suite: Suite):
    assert suite_wants(suite).wanted == ()
    assert check_assets(suite, "qbench fetch micro") == ""


def test_what_two_need_is_there_once(suite: Suite, need: Callable[..., None]):
    need((NETWORK, FEATURES), (FEATURES,))
    wanted = suite_wants(suite).wanted
    assert [(each.asset.name, each.users, each.is_essential) for each in wanted] == [
        ("the network", ("micro",), True),
        ("weights of features", ("micro", "micro-distance"), True),
    ]


def test_everything_that_is_missing_is_told_at_once(suite: Suite, need: Callable[..., None], workplace: Path):
    need((NETWORK, IMAGES), (FEATURES,))
    assert [each.asset for each in missing_assets(suite)] == [NETWORK, IMAGES, FEATURES]
    with pytest.raises(DataError) as refused:
        check_assets(suite, "qbench fetch micro.yaml")
    downloads = workplace / "downloads" / "example.org"
    assert str(refused.value).splitlines() == [
        f"{suite.path} needs what is not here:",
        "  the network (2.4 GB; for micro)",
        f"    {downloads}/network.zip.contents/model.ckpt is missing; from https://example.org/network.zip",
        "  real images (by hand; for micro)",
        "    no place is named: name a folder of them as 'reference.images'",
        "  weights of features (size unknown; for micro-distance)",
        f"    {downloads}/features.pth is missing; from https://example.org/features.pth",
        "get it with: qbench fetch micro.yaml   (2.4 GB and 1 of unknown size)",
        "what is to be brought by hand no command gets",
    ]


def test_weights_of_metrics_alone_are_no_reason_to_refuse(suite: Suite, need: Callable[..., None]):
    need((), (FEATURES,))
    told = check_assets(suite, "qbench fetch micro.yaml")
    assert "get it with: qbench fetch micro.yaml   (size unknown)" in told
    assert told.endswith("without it the figures of micro-distance fail, and everything else runs")


def test_what_is_there_is_not_missing(suite: Suite, need: Callable[..., None], tmp_path: Path):
    need((Asset("here", ByHand(tmp_path, "it is")),))
    assert check_assets(suite, "qbench fetch micro.yaml") == ""


def test_a_metric_whose_weights_nobody_published(suite: Suite, monkeypatch: pytest.MonkeyPatch):
    import micro_plugins

    def refuse(self: Any) -> tuple[Asset, ...]:
        raise DataError("there is no such model")

    monkeypatch.setattr(micro_plugins.MicroPool, "assets", refuse)
    assert suite_wants(suite).problems == ("there is no such model",)


def test_a_suite_without_its_files_can_be_read(micro_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    """Else nobody could find out what is to be fetched."""
    import micro_plugins

    def missing(self: Any) -> dict[str, str]:
        raise DataError("network.zip is missing")

    monkeypatch.setattr(micro_plugins.Micro, "weights", missing)
    micro_suite("other.yaml", name="other")
    suite = load_suite(micro_suite(include=["other.yaml"]))
    assert len(suite.cells) == 3
    with pytest.raises(DataError, match=r"network\.zip is missing"):
        _ = suite.cells[0].digest
