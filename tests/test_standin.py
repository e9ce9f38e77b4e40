"""``--standin``: tiny models in place of the real ones, and nothing scaled down in silence."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.errors import SuiteError
from qbench.suite import Suite, find_suite, load_suite

WriteSuite = Callable[..., Path]
PAPER = ("paper_table1", "paper_lsun_bedroom", "paper_lsun_church", "paper_sd")
STANDINS = {
    "ddim-cifar10": "tiny-ddim",
    "ldm-lsun-bedroom": "tiny-ldm",
    "ldm-lsun-church": "tiny-ldm-kl",
    "sd-v1-4": "tiny-sd",
}


@pytest.fixture(scope="module")
def paper() -> Suite:
    return load_suite(find_suite("paper"), standin=True)


def test_every_workload_of_the_paper_has_its_standin(paper: Suite):
    assert paper.standins == STANDINS
    assert {cell.workload_label for cell in paper.cells} == set(STANDINS.values())


def test_every_cell_of_the_paper_is_there(paper: Suite):
    methods = ("linear-fast", "squant-fast", "ptq4dm-fast", "qdiffusion-fast")
    for standin in STANDINS.values():
        bits = ("W8A32", "W4A32", "W8A8", "W4A8S16" if standin == "tiny-sd" else "W4A8")
        found = {(cell.label, str(cell.bits)) for cell in paper.cells if cell.workload_label == standin}
        assert found == {("full-precision", "W32A32")} | {(label, each) for label in methods for each in bits}


def test_what_is_scaled_down_is_small_and_told(paper: Suite):
    assert {cell.samples for cell in paper.cells} == {250}
    assert {cell.workload.sampler.steps for cell in paper.cells} == {20}
    assert {cell.boundary_bits for cell in paper.cells if cell.method} == {8}
    assert paper.name == "paper-standin"
    assert paper.title == (
        "The tables of Q-Diffusion (stand-ins: tiny models, 20 steps, 250 samples, fast presets, boundary_bits 8)"
    )


def test_metrics_become_those_of_the_standins_and_never_keep_the_name_of_a_real_one(paper: Suite):
    metrics = {cell.workload_label: [metric.name for metric in cell.metrics] for cell in paper.cells}
    assert metrics["tiny-ddim"] == ["fd-fashion", "sfd-fashion", "is-fashion", "mse-to-fp"]
    assert metrics["tiny-sd"] == ["fd-fashion", "sfd-fashion", "clip-tiny", "mse-to-fp"]


def test_standins_are_sampled_like_what_they_stand_for(paper: Suite):
    samplers = {cell.workload_label: cell.workload.sampler for cell in paper.cells}
    assert samplers["tiny-ddim"].spacing == "quad"
    assert samplers["tiny-ldm"].eta == 1.0
    assert samplers["tiny-ldm-kl"].eta == 0.0
    assert (samplers["tiny-sd"].name, samplers["tiny-sd"].guidance_scale > 1) == ("plms", True)


@pytest.mark.parametrize("name", PAPER)
def test_without_the_option_the_paper_is_as_published(name: str):
    suite = load_suite(find_suite(name))
    expected = {"paper_sd": 5000}.get(name, 50_000)
    assert {cell.samples for cell in suite.cells} == {expected}
    assert {cell.boundary_bits for cell in suite.cells} == {None}
    assert suite.standins == {}
    assert not any("fast" in cell.label for cell in suite.cells)


def test_without_the_option_the_samplers_are_the_papers():
    samplers = {name: load_suite(find_suite(name)).cells[0].workload.sampler for name in PAPER}
    table1, bedroom, church, sd = (samplers[name] for name in PAPER)
    assert (table1.steps, table1.spacing, table1.eta, table1.final_alpha) == (100, "quad", 0.0, "one")
    assert (bedroom.steps, bedroom.steps_offset, bedroom.eta, bedroom.final_alpha) == (200, 1, 1.0, "first")
    assert (church.steps, church.steps_offset, church.eta, church.final_alpha) == (500, 1, 0.0, "first")
    assert (sd.name, sd.steps, sd.calls, sd.guidance_scale) == ("plms", 50, 51, 7.5)


def test_the_outermost_suite_says_what_is_scaled_down(tmp_path: Path):
    inner = tmp_path / "inner.yaml"
    inner.write_text(
        "name: inner\nworkloads: [ddim-cifar10]\nmethods: [linear]\nbits: [W8A32]\nmetrics: [fid]\n"
        "standin: {steps: 40, samples: 200}\n"
    )
    outer = tmp_path / "outer.yaml"
    outer.write_text("name: outer\ninclude: [inner.yaml]\nstandin: {steps: 10, samples: 30, boundary_bits: null}\n")
    suite = load_suite(outer, standin=True)
    assert {(cell.samples, cell.workload.sampler.steps, cell.boundary_bits) for cell in suite.cells} == {(30, 10, None)}
    assert "10 steps, 30 samples, fast presets, no boundary_bits" in suite.title


def test_values_on_the_command_line_win():
    suite = load_suite(find_suite("paper_table1"), {"samples": 20, "boundary_bits": None, "name": "strict"}, True)
    assert {(cell.samples, cell.boundary_bits) for cell in suite.cells} == {(20, None)}
    assert suite.name == "strict-standin"


def test_a_standin_stays_as_it_is(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nworkloads: [tiny-ddim]\nmethods: [linear]\nbits: [W8A32]\nmetrics: [fid]\n")
    suite = load_suite(path, standin=True)
    assert {cell.workload_label for cell in suite.cells} == {"tiny-ddim"}
    assert [metric.name for metric in suite.cells[0].metrics] == ["fd-fashion"]


def test_a_workload_without_a_standin_is_refused(micro_suite: WriteSuite):
    with pytest.raises(SuiteError, match=r"entry 1.*the workload 'micro' has no stand-in"):
        load_suite(micro_suite(), standin=True)


def test_an_exclusion_follows_its_workload(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text(
        "name: own\nworkloads: [ddim-cifar10]\nmethods: [linear]\nbits: [W8A32, W4A32]\nmetrics: [fid]\n"
        "exclude: [{workload: ddim-cifar10, bits: W4A32}]\n"
    )
    assert [str(cell.bits) for cell in load_suite(path, standin=True).cells] == ["W32A32", "W8A32"]


@pytest.mark.parametrize("value", ["{steps: 0}", "{boundary_bits: 9}", "{presets: fast}"])
def test_a_wrong_key_or_value_is_told_with_its_line(tmp_path: Path, value: str):
    path = tmp_path / "own.yaml"
    path.write_text(f"name: own\nstandin: {value}\n")
    with pytest.raises(SuiteError, match=r"own\.yaml:2 \(standin"):
        load_suite(path)
