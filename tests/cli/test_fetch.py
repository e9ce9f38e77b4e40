import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

CONTENT = b"weights" * 1000
DIGEST = sha256(CONTENT).hexdigest()
ENTRY_POINTS = """\
[qbench.workloads]
needy = needy_workloads:Needy

[qbench.metrics]
needy-distance = needy_workloads:NeedyDistance
"""
MODULE = """\
import os
from hashlib import sha256
from pathlib import Path

from micro_plugins import Micro, MicroDistance

from qbench.workloads.assets import Address, Asset, ByHand, HubFolder

URL = os.environ["NEEDY_URL"]
NETWORK = Asset("the network", HubFolder("some/model", "main", ("config.json", "weights.safetensors")), 7_002)
STATISTICS = Asset("statistics", Address(f"{URL}/statistics.npz"))
FEATURES = Asset("weights of features", Address(f"{URL}/features.pth", digest=os.environ["NEEDY_DIGEST"]), 7_000)
IMAGES = Asset("real images", ByHand(Path(os.environ["NEEDY_IMAGES"]), "put real images there"))


class Needy(Micro):
    def assets(self):
        return NETWORK, STATISTICS, IMAGES

    def weights(self):
        found = NETWORK.require()
        return {"weights.safetensors": sha256((found / "weights.safetensors").read_bytes()).hexdigest()}


class NeedyDistance(MicroDistance):
    def assets(self):
        return (FEATURES,)
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Where real images are looked for; nothing is there."""
    return tmp_path / "images"


@pytest.fixture
def suite(
    server: Any,
    micro_suite: Callable[..., Path],
    images: Path,
    install: Callable[[str, str, dict[str, str]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A suite that needs a network of the hub, statistics, weights of a metric, and images that nobody can fetch."""
    from micro_server import File

    server.repositories["some/model"] = {"config.json": b"{}", "weights.safetensors": CONTENT}
    server.files["/statistics.npz"] = File(b"statistics")
    server.files["/features.pth"] = File(CONTENT)
    monkeypatch.setenv("NEEDY_URL", server.url)
    monkeypatch.setenv("NEEDY_DIGEST", DIGEST)
    monkeypatch.setenv("NEEDY_IMAGES", str(images))
    monkeypatch.delitem(sys.modules, "needy_workloads", raising=False)
    install("needy", ENTRY_POINTS, {"needy_workloads.py": MODULE})
    return micro_suite(workloads=["needy"], metrics=["needy-distance", "mse-to-fp"], bits=["W4A32"])


@pytest.fixture
def complete(suite: Path, images: Path) -> Path:
    """The same suite, with the images at hand."""
    images.mkdir()
    return suite


def states(answer: Any) -> dict[str, str]:
    return {each["name"]: each["state"] for each in answer.json["assets"]}


class TestFetch:
    def test_everything_comes_and_the_suite_runs(self, qbench: Callable[..., Any], complete: Path, server: Any):
        answer = qbench("fetch", complete)
        assert answer.code == 0, answer.err
        assert answer.out.splitlines()[-1] == "4 of 4 are here"
        assert "fetching the network (7.0 kB) from some/model on Hugging Face's hub" in answer.err
        assert "no checksum of " in answer.err
        server.gone()
        again = qbench("fetch", complete, "--json")
        assert again.code == 0
        assert set(states(again).values()) == {"here"}
        run = qbench("run", complete)
        assert run.code == 0, run.err
        assert server.requests == []

    def test_what_fails_keeps_nothing_else_from_coming(self, qbench: Callable[..., Any], suite: Path, server: Any):
        del server.repositories["some/model"]
        answer = qbench("fetch", suite, "--json")
        assert answer.code == 1
        assert states(answer) == {
            "the network": "missing",
            "statistics": "fetched",
            "real images": "missing",
            "weights of features": "fetched",
        }
        failures = [line for line in answer.err.splitlines() if line.startswith("failed: ")]
        assert len(failures) == 2
        assert "has no repository 'some/model'" in failures[0]
        assert failures[1].endswith("images is missing: put real images there")

    def test_ctrl_c(self, qbench: Callable[..., Any], suite: Path, monkeypatch: pytest.MonkeyPatch):
        from qbench.workloads.address import Address

        def press(self: Address, report: object) -> str:
            raise KeyboardInterrupt

        monkeypatch.setattr(Address, "fetch", press)
        answer = qbench("fetch", suite)
        assert answer.code == 130
        assert answer.err.endswith("qbench: stopped; what has come is kept, run the same command to go on\n")

    def test_in_a_process_of_its_own(self, suite: Path, server: Any, caches: Path, plugin_folder: Path):
        """As a user has it: HF_ENDPOINT and HF_HOME are read when huggingface_hub is imported."""
        done = subprocess.run(
            [sys.executable, "-m", "qbench", "fetch", str(suite)],
            env={**os.environ, "HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1] == "3 of 4 are here"
        assert str(caches / "huggingface" / "hub" / "models--some--model" / "snapshots") in done.stdout
        assert "Traceback" not in done.stderr


class TestDryRun:
    def test_it_says_what_it_would_take_and_uses_no_network(
        self, qbench: Callable[..., Any], suite: Path, server: Any, workplace: Path
    ):
        answer = qbench("fetch", suite, "--dry-run")
        assert answer.code == 0
        rows = [line.split() for line in answer.out.splitlines()]
        assert rows[0] == ["what", "size", "from", "for", "state"]
        assert rows[1][:4] + rows[1][-2:] == ["the", "network", "7.0", "kB", "needy", "missing"]
        assert "to fetch: 14.0 kB and 1 of unknown size" in answer.out
        assert "GB free where" in answer.out
        assert "by hand: real images: " in answer.out
        assert server.requests == []
        assert not (workplace / "downloads").exists()

    def test_as_json(self, qbench: Callable[..., Any], complete: Path):
        before = qbench("fetch", complete, "--dry-run", "--json").json
        assert (before["missing_bytes"], before["of_unknown_size"]) == (14_002, 1)
        assert all(free > 0 for free in before["free_bytes"].values())
        qbench("fetch", complete)
        after = qbench("fetch", complete, "--dry-run", "--json").json
        assert {each["state"] for each in after["assets"]} == {"here"}
        assert all(Path(each["path"]).exists() for each in after["assets"])

    def test_nothing_is_needed(self, qbench: Callable[..., Any], micro_suite: Callable[..., Path]):
        for arguments in (["--dry-run"], []):
            assert qbench("fetch", micro_suite(), *arguments).out == "nothing has to be fetched\n"


class TestRunAndPlan:
    @pytest.mark.parametrize("command", [["run"], ["plan"], ["run", "--dry-run"]])
    def test_what_is_missing_is_told_before_anything(
        self, qbench: Callable[..., Any], suite: Path, command: list[str], workplace: Path, server: Any
    ):
        answer = qbench(*command, suite)
        assert answer.code == 1
        assert answer.err.startswith(f"qbench: {suite} needs what is not here:\n")
        for name in ("the network (7.0 kB; for needy)", "statistics (size unknown; ", "real images (by hand; "):
            assert f"  {name}" in answer.err
        assert "  weights of features (7.0 kB; for needy-distance)" in answer.err
        assert f"get it with: qbench fetch {suite}   (14.0 kB and 1 of unknown size)" in answer.err
        assert server.requests == []
        assert not (workplace / "results").exists()

    def test_without_the_weights_of_a_metric_its_figures_fail(
        self, qbench: Callable[..., Any], complete: Path, workplace: Path, server: Any
    ):
        server.files["/features.pth"].content = b"other"
        assert qbench("fetch", complete).code == 1
        answer = qbench("run", complete)
        assert answer.code == 1
        assert "without it the figures of needy-distance fail, and everything else runs" in answer.err
        table = (workplace / "results" / "micro" / "table.md").read_text(encoding="utf-8")
        assert "weights of features: " in table
        assert "qbench fetch SUITE" in table


class TestMetrics:
    def test_what_metrics_need_without_a_suite(self, qbench: Callable[..., Any], suite: Path):
        answer = qbench("fetch", "--metrics", "needy-distance,mse-to-fp", "--json")
        assert answer.code == 0
        assert states(answer) == {"weights of features": "fetched"}

    def test_settings_of_metrics(self, qbench: Callable[..., Any], caches: Path):
        answer = qbench("fetch", "--metrics", "clip-score", "--set", "clip-score.model=ViT-L-14", "--dry-run", "--json")
        (weights,) = answer.json["assets"]
        assert weights["name"] == "open_clip's ViT-L-14 with weights 'openai'"
        assert (weights["size"], weights["for"], weights["state"]) == (1_710_000_000, ["clip-score"], "missing")

    def test_a_model_that_nobody_published(self, qbench: Callable[..., Any], caches: Path):
        answer = qbench("fetch", "--metrics", "clip-score", "--set", "clip-score.model=ViT-X")
        assert answer.code == 1
        assert "open_clip has no model 'ViT-X'" in answer.err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "name a suite, or metrics with --metrics, and not both"),
            (["quickstart", "--metrics", "fid"], "name a suite, or metrics with --metrics, and not both"),
            (["--metrics", "fid", "--only", "bits=W4A8"], "--only and --standin change a suite"),
            (["--metrics", "fid", "--set", "nonsense"], "--set nonsense: write KEY=VALUE"),
        ],
    )
    def test_wrong_usage(self, qbench: Callable[..., Any], arguments: list[str], message: str):
        answer = qbench("fetch", *arguments)
        assert answer.code == 2
        assert message in " ".join(answer.err.split())
