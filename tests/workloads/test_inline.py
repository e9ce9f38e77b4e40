"""Models of one's own, written inline in a suite."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import yaml

from qbench.errors import DataError, SuiteError
from qbench.plan import make_plan
from qbench.suite import load_suite
from qbench.workload import Workload

Qbench = Callable[..., Any]
PAGE = Path(__file__).parents[2] / "docs" / "own-workload.md"
STEPS = {"steps": 2, "eta": 0}


@pytest.fixture(autouse=True)
def _small_metrics(fake_plugins: Path, install: Callable[..., None]) -> None:
    install("small", small.ENTRY_POINTS, {"small_metrics.py": small.MODULE})


@pytest.fixture
def home(workplace: Path) -> Path:
    """A folder, not the current one, with a model and real images beside the suite that will be written there."""
    found = workplace / "home"
    small.ddpm(found / "my-ddpm")
    small.pictures(found / "train", 16)
    return found


def write(home: Path, *workloads: dict[str, Any], name: str = "small", **changes: Any) -> Path:
    content = {
        "name": "small",
        "workloads": list(workloads) or [entry()],
        "methods": ["squant"],
        "bits": ["W4A32"],
        "metrics": ["mse-to-fp", "small-distance"],
        "samples": 2,
    }
    path = home / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return path


def entry(**changes: Any) -> dict[str, Any]:
    return {"name": "my-ddpm", "pipeline": "./my-ddpm", "sampler": STEPS, "reference": {"images": "./train"}} | changes


def workload(path: Path) -> Workload:
    return load_suite(path).cells[0].workload


def digests(path: Path) -> dict[str, set[str]]:
    """The digests of all stages of a suite, by kind."""
    found: dict[str, set[str]] = {}
    for digest, stage in make_plan(load_suite(path)).stages.items():
        found.setdefault(stage.kind, set()).add(digest)
    return found


def text_folder(folder: Path) -> Path:
    """What is read of a model with a text encoder before it is loaded."""
    for part, config in {
        "unet": {"_class_name": "UNet2DConditionModel", "sample_size": 8, "in_channels": 4, "out_channels": 4},
        "text_encoder": {"architectures": ["CLIPTextModel"]},
    }.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    (folder / "text_encoder" / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer").mkdir()
    (folder / "scheduler").mkdir()
    scheduler = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


def test_a_folder_runs_from_anywhere_under_the_name_it_is_given(qbench: Qbench, home: Path, workplace: Path) -> None:
    answer = qbench("run", write(home).relative_to(workplace))
    assert answer.code == 0, answer.err
    found = small.records(workplace / "results" / "small")
    assert found.keys() == {("full-precision", "W32A32"), ("squant", "W4A32")}
    for record in found.values():
        assert record["status"] == "complete"
        assert record["workload"] == "my-ddpm"
        assert record["figures"]["small-distance"]["value"] > 0


def test_the_page_tells_the_truth(qbench: Qbench, home: Path, workplace: Path, monkeypatch: Any) -> None:
    """Its suite and its commands, scaled down to what a test has time for."""
    text = PAGE.read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    lines = [line for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    commands = [line for line in lines if "my-suite.yaml" in line]
    assert len(commands) == 3
    monkeypatch.chdir(home)
    Path("my-suite.yaml").write_text(shown.replace("fid", "small-distance"))
    smaller = ["--set", "samples=2", "--set", "steps=3", "--set", "bits=[W4A32]", "--only", "method=linear"]
    for command in commands:
        answer = qbench(*shlex.split(command)[1:], *smaller)
        assert answer.code == 0, answer.err
    found = small.records(home / "results" / "my-suite")
    assert {label for label, _ in found} == {"full-precision", "linear"}
    assert all(record["status"] == "complete" for record in found.values())


def test_the_settings_of_the_page_are_read(home: Path) -> None:
    """Those that are no suite of their own."""
    blocks = re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    schedule, captions = (yaml.safe_load(block)["settings"] for block in blocks if "settings:" in block)
    (home / "my-ddpm" / "scheduler_config.json").unlink()
    assert workload(write(home, entry(settings=schedule))).schedule.train_steps == 1000
    text_folder(home / "my-sd")
    small.captions(home / "captions.txt", ["a", "b"])
    small.captions(home / "other-captions.txt", ["c"])
    found = workload(write(home, entry(pipeline="./my-sd", settings=captions)))
    assert found.captions(range(2)) == ["a", "b"]
    assert found.calibration_captions(range(2)) == ["c", "c"]


class TestSampler:
    def test_it_is_completed_by_the_folders_scheduler(self, home: Path) -> None:
        small.ddpm(home / "my-ddpm", timestep_spacing="trailing", set_alpha_to_one=False, beta_schedule="scaled_linear")
        found = workload(write(home))
        assert found.sampler.model_dump() == {
            "name": "ddim",
            "steps": 2,
            "eta": 0.0,
            "spacing": "trailing",
            "final_alpha": "first",
        }
        assert found.schedule.betas == "scaled_linear"

    def test_what_the_suite_says_wins(self, home: Path) -> None:
        small.ddpm(home / "my-ddpm", steps_offset=1, set_alpha_to_one=False)
        assert workload(write(home)).sampler.steps_offset == 1
        found = workload(write(home, entry(sampler={**STEPS, "spacing": "quad", "final_alpha": "one"}))).sampler
        assert (found.spacing, found.steps_offset, found.final_alpha) == ("quad", 0, "one")

    def test_another_sampler_takes_nothing_of_the_folders(self, home: Path) -> None:
        small.ddpm(home / "my-ddpm", steps_offset=1)
        found = workload(write(home, entry(sampler={"name": "euler", "steps": 2}))).sampler
        assert found.model_dump() == {"name": "euler", "steps": 2, "eta": 0.0}

    def test_what_the_folder_says_may_be_said_again(self, home: Path) -> None:
        plain = digests(write(home))
        told = {**STEPS, "name": "ddim", "spacing": "uniform", "steps_offset": 0, "final_alpha": "one"}
        assert digests(write(home, entry(sampler=told))) == plain

    def test_steps_of_the_suite_and_of_the_command_line(self, home: Path) -> None:
        path = write(home, entry(sampler={}), steps=7)
        assert workload(path).sampler.steps == 7
        assert load_suite(path, {"steps": 9}).cells[0].workload.sampler.steps == 9
        assert workload(write(home, entry(sampler={}))).sampler.steps == 50


class TestIdentity:
    def test_it_moves_with_its_suite_and_nothing_changes(self, home: Path, workplace: Path) -> None:
        before = digests(write(home))
        shutil.move(home, workplace / "elsewhere")
        assert digests(workplace / "elsewhere" / "small.yaml") == before

    def test_one_weight_changes_all_that_depends_on_it(self, home: Path) -> None:
        before = digests(write(home))
        weights = home / "my-ddpm" / "diffusion_pytorch_model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        after = digests(home / "small.yaml")
        assert after.pop("reference") == before.pop("reference")
        assert all(not after[kind] & before[kind] for kind in before)

    def test_another_reference_samples_nothing(self, qbench: Qbench, home: Path, workplace: Path) -> None:
        assert qbench("run", write(home)).code == 0
        figure = small.records(workplace / "results" / "small")["squant", "W4A32"]["figures"]
        samples = small.stored(workplace / "store", "sample")
        small.pictures(home / "others", 16, seed=1)
        answer = qbench("run", write(home, entry(reference={"images": "./others"})))
        assert answer.code == 0
        other = small.records(workplace / "results" / "small")["squant", "W4A32"]["figures"]
        assert small.stored(workplace / "store", "sample") == samples
        assert other["mse-to-fp"] == figure["mse-to-fp"]
        assert other["small-distance"] != figure["small-distance"]

    def test_two_references_of_one_model_in_one_suite(self, home: Path) -> None:
        small.pictures(home / "others", 16, seed=1)
        other = entry(name="other", reference={"images": "./others"})
        found = digests(write(home, entry(), other))
        assert len(found["reference"]) == 2
        assert len(found["sample"]) == 2  # full precision and squant
        assert len(found["score"]) == 1 + 2 * 2

    def test_two_references_under_one_name_are_refused(self, home: Path) -> None:
        small.pictures(home / "others", 16, seed=1)
        write(home, entry(reference={"images": "./others"}), name="second", methods=["linear"])
        with pytest.raises(SuiteError, match=r"the cell my-ddpm.* is there twice with different settings"):
            load_suite(write(home, include=["second.yaml"]))

    def test_two_lists_of_captions_of_one_model_in_one_suite(self, home: Path) -> None:
        text_folder(home / "my-sd")
        small.captions(home / "one.txt", ["a cat", "a dog"])
        small.captions(home / "two.txt", ["a cow", "a fox"])
        entries = [
            entry(name=name, pipeline="./my-sd", settings={"captions": path, "calibration_captions": "one.txt"})
            for name, path in {"one": "one.txt", "two": "two.txt"}.items()
        ]
        path = write(home, *entries, metrics=["mse-to-fp"])
        assert len(digests(path)["sample"]) == 4
        assert len({cell.digest for cell in load_suite(path).cells}) == 4


class TestHub:
    @pytest.fixture
    def suite(self, server: Any, home: Path) -> Path:
        """A suite whose model is on the hub only."""
        folder = home / "my-ddpm"
        server.repositories["me/my-ddpm"] = {path.name: path.read_bytes() for path in folder.iterdir()}
        return write(home, entry(pipeline="me/my-ddpm"))

    def test_it_is_fetched_and_is_the_same_model(self, qbench: Qbench, home: Path, suite: Path, server: Any) -> None:
        refused = qbench("run", suite)
        assert refused.code == 1
        assert "me/my-ddpm is not in Hugging Face's cache" in refused.err
        assert f"get it with: qbench fetch {suite}" in refused.err
        assert server.requests == []
        fetched = qbench("fetch", suite)
        assert fetched.code == 0, fetched.err
        server.gone()
        answer = qbench("run", suite)
        assert answer.code == 0, answer.err
        assert server.requests == []
        assert digests(write(home)) == digests(write(home, entry(pipeline="me/my-ddpm@main")))

    def test_a_folder_of_that_name_comes_first(self, home: Path, suite: Path, caches: Path) -> None:
        shutil.copytree(home / "my-ddpm", home / "me" / "my-ddpm")
        assert workload(suite).assets()[0].find() == home / "me" / "my-ddpm"

    def test_there_is_no_such_repository(self, qbench: Qbench, home: Path, server: Any, caches: Path) -> None:
        answer = qbench("fetch", write(home, entry(pipeline="me/my-dppm")))
        assert answer.code == 1
        assert "has no repository 'me/my-dppm' that you may see: check the name" in answer.err
        assert not list(caches.rglob("*my-dppm*/snapshots"))

    def test_a_repository_without_a_model(self, qbench: Qbench, home: Path, server: Any, caches: Path) -> None:
        server.repositories["me/notes"] = {"README.md": b"notes"}
        answer = qbench("fetch", write(home, entry(pipeline="me/notes")))
        assert answer.code == 1
        assert "me/notes at main has no file unet/config.json|config.json" in answer.err
        assert not list(caches.rglob("*notes*/snapshots"))

    def test_a_pipeline_with_parts_that_are_not_loaded_is_seen_to_have_them(
        self, qbench: Qbench, home: Path, server: Any
    ) -> None:
        files = {path.relative_to(home / "sd").as_posix(): path for path in text_folder(home / "sd").rglob("*.*")}
        content = {name: path.read_bytes() for name, path in files.items()}
        server.repositories["me/xl"] = content | {"text_encoder_2/config.json": b"{}", "text_encoder_2/model.bin": b"x"}
        suite = write(home, entry(pipeline="me/xl"))
        assert qbench("fetch", suite).code == 0
        answer = qbench("run", suite)
        assert answer.code == 1
        assert "holds a pipeline with the part 'text_encoder_2'" in answer.err

    def test_a_checkpoint_that_is_not_there_is_no_id(self, home: Path) -> None:
        (asset, _) = workload(write(home, entry(pipeline="runs/model.ckpt"))).assets()
        assert not asset.is_fetchable
        with pytest.raises(DataError, match=r"home/runs/model\.ckpt is missing"):
            asset.require()
