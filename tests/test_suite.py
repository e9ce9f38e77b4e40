from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.cell import FULL_PRECISION_LABEL
from qbench.errors import SuiteError
from qbench.suite import Suite, find_suite, installed_suites, load_suite

MicroSuite = Callable[..., Path]
FULL = FULL_PRECISION_LABEL


def rows(suite: Suite) -> list[tuple[str, str, str, int]]:
    return [cell.key for cell in suite.cells]


def test_full_precision_comes_by_itself_once_per_workload_and_seed(micro_suite: MicroSuite):
    workloads = ["micro", {"name": "micro", "as": "louder", "settings": {"gain": 2.0}}]
    suite = load_suite(micro_suite(workloads=workloads, methods=["round", "other-round"], seeds=[3, 1]))
    full = [key for key in rows(suite) if key[1] == FULL]
    assert full == [(workload, FULL, "W32A32", seed) for workload in ("micro", "louder") for seed in (3, 1)]


def test_cells_are_in_the_order_of_the_file_with_full_precision_first(micro_suite: MicroSuite):
    suite = load_suite(micro_suite(methods=["round", "linear"], bits=["W4A8", "W4A32"], seeds=[1, 0]))
    assert rows(suite) == [
        ("micro", label, bits, seed)
        for seed in (1, 0)
        for label, bits in [
            (FULL, "W32A32"),
            ("round", "W4A8"),
            ("linear", "W4A8"),
            ("round", "W4A32"),
            ("linear", "W4A32"),
        ]
    ]


def test_every_value_of_the_file_reaches_the_cells(micro_suite: MicroSuite):
    path = micro_suite(title="Some title", samples=7, steps=3, seeds=[5], boundary_bits=8)
    suite = load_suite(path)
    assert (suite.name, suite.title, suite.path) == ("micro", "Some title", path)
    assert {cell.samples for cell in suite.cells} == {7}
    assert {cell.workload.sampler.steps for cell in suite.cells} == {3}
    assert {cell.seed for cell in suite.cells} == {5}
    assert [cell.boundary_bits for cell in suite.cells] == [None, 8, 8]
    assert [metric.name for metric in suite.cells[0].metrics] == ["micro-distance", "mse-to-fp"]


def test_the_title_is_the_name_if_there_is_none(micro_suite: MicroSuite):
    assert load_suite(micro_suite(name="plain")).title == "plain"


def test_boundary_bits_are_of_no_matter_where_weights_stay_in_full_precision(micro_suite: MicroSuite):
    suite = load_suite(micro_suite(bits=["W32A8", "W4A8"], boundary_bits=8))
    assert [(str(cell.bits), cell.boundary_bits) for cell in suite.cells] == [
        ("W32A32", None),
        ("W32A8", None),
        ("W4A8", 8),
    ]


def test_sampler_settings_can_be_given_in_both_places_and_come_before_steps_of_the_suite(micro_suite: MicroSuite):
    workloads = [
        {"name": "micro", "sampler": {"eta": 1.0, "steps": 9}},
        {"name": "micro", "as": "nested", "settings": {"sampler": {"eta": 0.5}}},
    ]
    path = micro_suite(workloads=workloads, steps=5)

    def samplers(suite: Suite) -> dict[str, tuple[float, int]]:
        return {cell.workload_label: (cell.workload.sampler.eta, cell.workload.sampler.steps) for cell in suite.cells}

    assert samplers(load_suite(path)) == {"micro": (1.0, 9), "nested": (0.5, 5)}
    assert samplers(load_suite(path, {"steps": 3})) == {"micro": (1.0, 3), "nested": (0.5, 3)}


class TestLabels:
    def test_a_method_is_named_by_id_and_preset_unless_as_says_otherwise(self, micro_suite: MicroSuite):
        methods = ["round", {"name": "round", "preset": "tight"}, {"name": "round", "as": "round-again"}]
        suite = load_suite(micro_suite(methods=methods, bits=["W4A32"]))
        assert [cell.label for cell in suite.cells] == [FULL, "round", "round-tight", "round-again"]

    def test_a_preset_fills_in_settings_and_settings_win_over_it(self, micro_suite: MicroSuite):
        methods = [
            {"name": "round", "preset": "tight"},
            {"name": "round", "preset": "tight", "settings": {"share": 0.5}, "as": "own"},
            {"name": "round", "preset": "few", "settings": {"calibration": {"steps": 3}}},
        ]
        suite = load_suite(micro_suite(methods=methods, bits=["W4A32"]))
        found = [cell.method.settings for cell in suite.cells if cell.method is not None]
        assert [settings.share for settings in found] == [0.75, 0.5, 1.0]
        assert (found[2].calibration.steps, found[2].calibration.per_step) == (3, 4)

    def test_two_entries_may_not_share_a_label(self, micro_suite: MicroSuite):
        path = micro_suite(methods=["round", {"name": "linear", "as": "round"}])
        with pytest.raises(SuiteError, match=r"micro\.yaml:\d+ .*'round' is there twice"):
            load_suite(path)

    def test_labels_that_one_file_system_may_not_tell_apart_are_refused(self, micro_suite: MicroSuite):
        with pytest.raises(SuiteError, match="differ by upper case only"):
            load_suite(micro_suite(methods=["round", {"name": "linear", "as": "Round"}]))

    def test_nobody_takes_the_name_of_full_precision(self, micro_suite: MicroSuite):
        with pytest.raises(SuiteError, match=f"'{FULL}' is taken"):
            load_suite(micro_suite(methods=[{"name": "round", "as": FULL}]))


class TestExclude:
    def test_cells_that_agree_in_every_key_are_left_out(self, micro_suite: MicroSuite):
        exclude = [{"method": "linear", "bits": "W4A8"}, {"seed": 1, "bits": "W4A32"}]
        suite = load_suite(micro_suite(methods=["round", "linear"], seeds=[0, 1], exclude=exclude))
        assert rows(suite) == [
            ("micro", FULL, "W32A32", 0),
            ("micro", "round", "W4A32", 0),
            ("micro", "linear", "W4A32", 0),
            ("micro", "round", "W4A8", 0),
            ("micro", FULL, "W32A32", 1),
            ("micro", "round", "W4A8", 1),
        ]

    def test_labels_count_and_not_ids(self, micro_suite: MicroSuite):
        methods = ["round", {"name": "round", "preset": "tight", "as": "narrow"}]
        suite = load_suite(micro_suite(methods=methods, bits=["W4A32"], exclude=[{"method": "narrow"}]))
        assert [cell.label for cell in suite.cells] == [FULL, "round"]

    def test_full_precision_goes_where_nothing_is_left_to_compare(self, micro_suite: MicroSuite):
        suite = load_suite(micro_suite(seeds=[0, 1], exclude=[{"seed": 1}]))
        assert {cell.seed for cell in suite.cells} == {0}

    def test_excluding_everything_is_an_error(self, micro_suite: MicroSuite):
        with pytest.raises(SuiteError, match="no cell is left to run"):
            load_suite(micro_suite(exclude=[{"method": "round"}]))

    @pytest.mark.parametrize("exclusion", [{"method": "rond"}, {"bits": "W4A6"}, {"seed": 7}, {}])
    def test_excluding_nothing_is_a_slip_of_the_pen(self, micro_suite: MicroSuite, exclusion: dict[str, object]):
        with pytest.raises(SuiteError, match=r"micro\.yaml:\d+ .*exclude"):
            load_suite(micro_suite(exclude=[exclusion]))

    def test_bits_that_a_method_refuses_are_an_error_until_they_are_excluded(self, micro_suite: MicroSuite):
        changes = {"methods": ["round", "four-only"], "bits": ["W4A32", "W8A32"]}
        with pytest.raises(SuiteError, match=r"micro\.yaml:\d+ .*four-only .*4 bits only.* W8A32"):
            load_suite(micro_suite(**changes))
        suite = load_suite(micro_suite(**changes, exclude=[{"method": "four-only", "bits": "W8A32"}]))
        assert ("micro", "four-only", "W8A32", 0) not in rows(suite)
        assert ("micro", "four-only", "W4A32", 0) in rows(suite)


class TestInclude:
    def test_cells_of_files_beside_it_and_of_installed_suites_are_added(self, micro_suite: MicroSuite):
        micro_suite("other.yaml", name="other", methods=["linear"], bits=["W8A8"])
        suite = load_suite(micro_suite(include=["other.yaml", "smoke"]))
        found = rows(suite)
        assert suite.name == "micro"
        assert ("micro", "linear", "W8A8", 0) in found
        assert ("tiny-ddim", "linear", "W4A8", 0) in found
        assert ("micro", "round", "W4A8", 0) in found
        assert found.count(("micro", FULL, "W32A32", 0)) == 1
        assert found.index(("micro", "round", "W4A8", 0)) < found.index(("micro", "linear", "W8A8", 0))  # its own first

    def test_a_path_is_relative_to_the_file_that_says_it(
        self, micro_suite: MicroSuite, monkeypatch: pytest.MonkeyPatch, workplace: Path
    ):
        (workplace / "deep").mkdir()
        micro_suite("deep/inner.yaml", name="inner", methods=["linear"])
        outer = micro_suite("deep/outer.yaml", name="outer", include=["inner.yaml"])
        monkeypatch.chdir("/")
        assert ("micro", "linear", "W4A32", 0) in rows(load_suite(outer))

    def test_a_suite_can_be_made_of_others_alone(self, micro_suite: MicroSuite):
        micro_suite("other.yaml", name="other")
        path = micro_suite(include=["other.yaml"], workloads=None, methods=None, bits=None, metrics=None)
        assert rows(load_suite(path)) == rows(load_suite(find_suite("other.yaml")))

    def test_the_same_cell_in_two_files_is_there_once(self, micro_suite: MicroSuite):
        micro_suite("other.yaml", name="other")
        assert len(load_suite(micro_suite(include=["other.yaml"])).cells) == 3

    def test_the_same_cell_gets_the_metrics_of_both_files(self, micro_suite: MicroSuite):
        micro_suite("other.yaml", name="other", metrics=["micro-contrast", "mse-to-fp"])
        suite = load_suite(micro_suite(include=["other.yaml"]))
        assert len(suite.cells) == 3
        for cell in suite.cells:
            assert {metric.name for metric in cell.metrics} == {"micro-distance", "mse-to-fp", "micro-contrast"}

    @pytest.mark.parametrize("change", [{"samples": 30}, {"steps": 2}])
    def test_one_workload_is_sampled_in_one_way(self, micro_suite: MicroSuite, change: dict[str, int]):
        micro_suite("other.yaml", name="other", seeds=[1], **change)
        with pytest.raises(SuiteError, match="'micro' stands for two workloads, samplers or sample counts"):
            load_suite(micro_suite(include=["other.yaml"], seeds=[0]))

    def test_one_metric_with_two_settings_is_an_error(self, micro_suite: MicroSuite):
        cubic = {"name": "micro-contrast", "settings": {"power": 3}}
        micro_suite("other.yaml", name="other", metrics=[cubic])
        with pytest.raises(SuiteError, match="twice with different settings"):
            load_suite(micro_suite(include=["other.yaml"], metrics=["micro-contrast"]))

    def test_one_label_for_two_settings_is_an_error(self, micro_suite: MicroSuite):
        methods = [{"name": "round", "settings": {"share": 0.5}}]
        micro_suite("other.yaml", name="other", methods=methods, bits=["W8A32"])
        with pytest.raises(SuiteError, match="'round' stands for two settings"):
            load_suite(micro_suite(include=["other.yaml"]))

    def test_one_row_with_two_settings_is_an_error(self, micro_suite: MicroSuite):
        micro_suite("other.yaml", name="other", samples=5)
        with pytest.raises(
            SuiteError, match=r"micro\.full-precision\.W32A32\.s0 is there twice with different settings"
        ):
            load_suite(micro_suite(include=["other.yaml"]))

    @pytest.mark.parametrize("links", [["a.yaml"], ["b.yaml", "a.yaml"], ["b.yaml", "c.yaml", "a.yaml"]])
    def test_a_circle_is_an_error_that_names_its_members(self, micro_suite: MicroSuite, links: list[str]):
        for name, target in zip(["a.yaml", *links[:-1]], links, strict=True):
            micro_suite(name, name=name[0], include=[target])
        with pytest.raises(SuiteError, match=r"in a circle \(a\.yaml.* -> a\.yaml\)"):
            load_suite(find_suite("a.yaml"))

    def test_two_ways_to_one_file_are_no_circle(self, micro_suite: MicroSuite):
        micro_suite("leaf.yaml", name="leaf")
        micro_suite("left.yaml", name="left", include=["leaf.yaml"])
        micro_suite("right.yaml", name="right", include=["leaf.yaml"])
        assert len(load_suite(micro_suite(include=["left.yaml", "right.yaml"])).cells) == 3

    def test_a_missing_one_is_named_with_the_line_that_asks_for_it(self, micro_suite: MicroSuite):
        with pytest.raises(SuiteError, match=r"micro\.yaml:\d+ .*nowhere\.yaml"):
            load_suite(micro_suite(include=["nowhere.yaml"]))


class TestOverrides:
    def test_they_replace_values_of_the_file(self, micro_suite: MicroSuite):
        suite = load_suite(micro_suite(), {"samples": 5, "seeds": [0, 1], "methods": ["linear"]})
        assert {cell.samples for cell in suite.cells} == {5}
        assert {cell.label for cell in suite.cells} == {FULL, "linear"}
        assert len(suite.cells) == 6

    def test_they_reach_included_files(self, micro_suite: MicroSuite):
        micro_suite("other.yaml", name="other", methods=["linear"])
        suite = load_suite(micro_suite(include=["other.yaml"]), {"samples": 5})
        assert {(cell.label, cell.samples) for cell in suite.cells} == {(FULL, 5), ("round", 5), ("linear", 5)}

    def test_a_wrong_value_is_blamed_on_the_option(self, micro_suite: MicroSuite):
        with pytest.raises(SuiteError, match=r"^--set samples: "):
            load_suite(micro_suite(), {"samples": "many"})

    def test_an_unknown_key_gets_a_suggestion(self, micro_suite: MicroSuite):
        with pytest.raises(SuiteError, match=r"--set sample: .*did you mean 'samples'"):
            load_suite(micro_suite(), {"sample": 5})


class TestOnly:
    def test_the_needed_full_precision_cell_is_kept(self, micro_suite: MicroSuite):
        suite = load_suite(micro_suite(methods=["round", "linear"], seeds=[0, 1]))
        chosen = suite.only({"method": ["linear"], "bits": ["W4A8"], "seed": ["1"]})
        assert rows(chosen) == [("micro", FULL, "W32A32", 1), ("micro", "linear", "W4A8", 1)]

    def test_one_of_several_values_is_enough(self, micro_suite: MicroSuite):
        suite = load_suite(micro_suite(methods=["round", "linear", "other-round"], bits=["W4A32"]))
        assert [cell.label for cell in suite.only({"method": ["linear", "round"]}).cells] == [FULL, "round", "linear"]

    def test_a_choice_does_not_move_the_rows(self, micro_suite: MicroSuite):
        suite = load_suite(micro_suite())
        assert suite.only({"bits": ["W4A8"]}).positions == suite.positions

    def test_full_precision_can_be_asked_for_alone(self, micro_suite: MicroSuite):
        assert rows(load_suite(micro_suite()).only({"method": [FULL]})) == [("micro", FULL, "W32A32", 0)]

    def test_what_no_cell_has_is_an_error_with_a_suggestion(self, micro_suite: MicroSuite):
        with pytest.raises(SuiteError, match="no cell has method=rond: did you mean 'round'"):
            load_suite(micro_suite()).only({"method": ["rond"]})


class TestInstalled:
    def test_every_installed_suite_loads(self):
        found = installed_suites()
        assert {"smoke", "quickstart"} <= set(found)
        for name, path in found.items():
            suite = load_suite(path)
            assert suite.name == name
            assert suite.title != name
            assert suite.cells[0].method is None

    def test_a_file_of_that_name_in_the_current_folder_wins(self, micro_suite: MicroSuite):
        assert find_suite("smoke") == installed_suites()["smoke"]
        micro_suite("smoke")
        assert find_suite("smoke") == Path("smoke")
