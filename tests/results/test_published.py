import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings, strategies

from qbench import plugins
from qbench.bits import BitWidth
from qbench.records import Record
from qbench.results.agreement import disagreements
from qbench.results.published import (
    PublishedFigure,
    published_folders,
    published_names,
    read_published,
)
from qbench.suite import installed_suites, load_suite

SHIPPED = published_folders(Path("/nowhere/results"))
NAMES = sorted(path.stem for path in SHIPPED[0].glob("*.yaml"))
TO_COME = {"ptqd", "tfmq-dm", "quest", "efficientdm", "tdq"}
"""Methods that are published and do not exist here yet."""
SMALL = """
paper: A paper
tables:
  - table: table 1
    workload: some-workload
    full_precision: {fid: 4}
    rows:
      - {method: linear, bits: W4A8, figures: {fid: 5.5}}
"""


@pytest.fixture(scope="module")
def shipped() -> list[PublishedFigure]:
    figures, problems = read_published(NAMES, SHIPPED)
    assert problems == []
    return figures


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], tuple[list[PublishedFigure], list[str]]]:
    def read_text(text: str) -> tuple[list[PublishedFigure], list[str]]:
        (tmp_path / "small.yaml").write_text(text, encoding="utf-8")
        return read_published(["small"], [tmp_path])

    return read_text


def only(figures: list[PublishedFigure], file: str, workload: str, method: str | None, bits: str) -> dict[str, float]:
    return {
        each.metric: each.value
        for each in figures
        if (each.file, each.workload, each.method, each.bits) == (file, workload, method, bits)
    }


def test_every_file_that_a_suite_names_is_shipped() -> None:
    for path in installed_suites().values():
        named = yaml.safe_load(path.read_text(encoding="utf-8")).get("published", [])
        assert set(named) <= set(NAMES), path.name


def test_each_shipped_figure_has_a_source_and_says_where_it_was_read_if_it_is_checked(
    shipped: list[PublishedFigure],
) -> None:
    assert len(shipped) > 100
    for figure in shipped:
        assert re.search(r"arXiv \d{4}\.\d{5}", figure.source.paper)
        assert figure.source.table
        assert figure.source.url.startswith("https://arxiv.org/abs/")
        assert bool(figure.read_in) == figure.checked, figure


def test_shipped_figures_name_what_exists(shipped: list[PublishedFigure]) -> None:
    workloads, metrics, methods = (
        {entry.name for entry in each.entries()} for each in (plugins.WORKLOADS, plugins.METRICS, plugins.METHODS)
    )
    assert {figure.workload for figure in shipped} <= workloads
    assert {figure.metric for figure in shipped} <= metrics
    assert {figure.method for figure in shipped if figure.method} <= methods | TO_COME
    for figure in shipped:
        assert str(BitWidth.parse(figure.bits)) == figure.bits
        assert (figure.bits == "W32A32") == figure.is_full_precision


def test_shipped_figures_are_those_of_the_papers(shipped: list[PublishedFigure]) -> None:
    cifar, bedrooms, churches, sd = "ddim-cifar10", "ldm-lsun-bedroom", "ldm-lsun-church", "sd-v1-4"
    assert only(shipped, "q-diffusion", cifar, None, "W32A32") == {"fid": 4.22, "is": 9.12}
    assert only(shipped, "q-diffusion", cifar, "qdiffusion", "W4A8") == {"fid": 4.93, "is": 9.12}
    assert only(shipped, "q-diffusion", cifar, "linear", "W8A8") == {"fid": 118.26, "is": 5.23}
    assert only(shipped, "q-diffusion", bedrooms, "squant", "W4A32") == {"fid": 149.97}
    assert only(shipped, "q-diffusion", churches, "qdiffusion", "W4A8") == {"fid": 4.12}
    assert only(shipped, "tfmq-dm", bedrooms, "qdiffusion", "W4A8") == {"fid": 6.40, "sfid": 17.93}
    assert only(shipped, "tfmq-dm", churches, None, "W32A32") == {"fid": 4.12, "sfid": 10.89}
    assert only(shipped, "tfmq-dm", sd, "qdiffusion", "W4A8") == {"fid": 14.49, "sfid": 20.43, "clip-score": 31.21}
    assert only(shipped, "quest", bedrooms, "qdiffusion", "W4A8") == {"fid": 5.37}
    assert only(shipped, "ptq4dm", cifar, "ptq4dm", "W8A8") == {"is": 9.31, "fid": 14.18, "sfid": 22.59}


def test_the_documentation_counts_them_right(shipped: list[PublishedFigure]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "published.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \|[^|]+\| (\d+) \| (\d+) \|$", text, flags=re.MULTILINE)
    told = {tuple(re.findall(r"`([^`]+)`", files)): (int(count), int(checked)) for files, count, checked in rows}
    assert sorted(name for files in told for name in files) == NAMES
    for files, counts in told.items():
        own = [figure for figure in shipped if figure.file in files]
        assert counts == (len(own), sum(figure.checked for figure in own)), files


def test_the_example_in_the_documentation_can_be_read(
    read: Callable[[str], tuple[list[PublishedFigure], list[str]]],
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "published.md").read_text(encoding="utf-8")
    example = text.split("```yaml\n")[1].split("```")[0]
    figures, problems = read(example)
    assert problems == []
    assert len(figures) == 5


def test_what_is_recalled_is_not_checked(shipped: list[PublishedFigure]) -> None:
    checked = {
        (each.workload, each.method, each.bits, each.metric)
        for each in shipped
        if each.file == "q-diffusion" and each.checked
    }
    cifar = "ddim-cifar10"
    assert checked == {
        (cifar, None, "W32A32", "fid"),
        (cifar, "linear", "W4A8", "fid"),
        *((cifar, "qdiffusion", bits, "fid") for bits in ("W4A32", "W8A8", "W4A8")),
    }
    assert all(
        each.read_in.startswith("secondary: ") for each in shipped if each.file == "q-diffusion" and each.checked
    )
    assert not any(each.checked for each in shipped if each.file in ("efficientdm", "tdq"))


def rows_of(suite: str, make_record: Callable[..., Record], **overrides: Any) -> list[Record]:
    """Return a row for each quantized cell of a suite, as if it had been run with the published weights."""
    inception = {"name": "inception", "published_weights": True}
    description = {"metric": {"settings": {"splits": 10}}, "extractor": inception, "reference": {"samples": 50_000}}
    info = {"title": "", "direction": "lower", "against": "real images", "protocol": "", "paper": ""}
    records = []
    for cell in load_suite(installed_suites()[suite], overrides).cells:
        if cell.method is not None:
            sampler = cell.workload.settings.model_dump(mode="json")["sampler"]
            workload = {"name": cell.workload.name, "settings": {"sampler": sampler}}
            record = make_record(
                label=cell.label,
                bits=str(cell.bits),
                boundary_bits=cell.boundary_bits,
                samples=cell.samples,
                description={"workload": workload, "method": cell.method.describe()},
                metrics={metric.name: info | {"description": description} for metric in cell.metrics},
            )
            records.append(record.model_copy(update={"method": cell.method.name}))
    return records


def pairs(records: list[Record], figures: list[PublishedFigure]) -> list[tuple[Record, PublishedFigure]]:
    return [
        (record, figure)
        for record in records
        for figure in figures
        if (figure.method, figure.bits) == (record.method, record.bits)
        and figure.workload == record.description["workload"]["name"]
    ]


@pytest.mark.parametrize(
    ("suite", "files", "count"),
    [
        ("paper_table1", ["q-diffusion"], 24),
        ("paper_lsun_bedroom", ["q-diffusion", "tfmq-dm", "quest"], 12 + 12 + 2),
        ("paper_lsun_church", ["q-diffusion", "tfmq-dm", "quest"], 12 + 12 + 2),
    ],
)
def test_the_suites_of_the_papers_are_run_as_the_papers_say(
    suite: str, files: list[str], count: int, shipped: list[PublishedFigure], make_record: Callable[..., Record]
) -> None:
    figures = [figure for figure in shipped if figure.file in files]
    found = pairs(rows_of(suite, make_record), figures)
    assert len(found) == count
    assert [disagreements(*pair) for pair in found] == [[]] * count
    changed = pairs(rows_of(suite, make_record, samples=5_000), figures)
    assert all(disagreements(*pair) == ["5,000 images here, 50,000 in the source"] for pair in changed)


def test_no_figure_of_stable_diffusion_can_be_compared_with_the_suite(
    shipped: list[PublishedFigure], make_record: Callable[..., Record]
) -> None:
    """One source has other captions, and the other does not tell how many."""
    found = pairs(rows_of("paper_sd", make_record), shipped)
    assert {figure.file for _, figure in found} == {"tfmq-dm", "quest"}
    for record, figure in found:
        expected = {
            "quest": "5,000 images here, 10,000 in the source",
            "tfmq-dm": "the source does not tell how many images",
        }
        assert disagreements(record, figure)[0] == expected[figure.file]


def test_ptq4dms_own_figures_are_of_another_model(
    shipped: list[PublishedFigure], make_record: Callable[..., Record]
) -> None:
    found = pairs(rows_of("paper_table1", make_record), [each for each in shipped if each.file == "ptq4dm"])
    assert found
    assert all("model is another one" in disagreements(*pair)[0] for pair in found)


def test_levels_of_a_file_add_up_and_the_innermost_wins(
    read: Callable[[str], tuple[list[PublishedFigure], list[str]]],
) -> None:
    figures, problems = read("""
paper: A paper
url: https://example.org/paper
checked: true
read_in: the paper
protocol: {samples: 100, sampler: {name: ddim, steps: 10}, metrics: {fid: {extractor: {name: inception}}}}
tables:
  - table: table 1
    workload: some-workload
    protocol: {sampler: {steps: 20}}
    methods: {linear: {boundary_bits: 8, left_out: ["conv_*"], settings: {split: true}}}
    full_precision: {fid: 4}
    rows:
      - method: linear
        bits: W4A8
        note: of the row
        figures: {fid: {value: 5.5, band: 0.5, checked: false, note: of the figure}, is: 9}
""")
    assert problems == []
    full, fid, score = figures
    assert (full.method, full.bits, full.metric, full.value) == (None, "W32A32", "fid", 4.0)
    assert (full.source.paper, full.source.table, full.source.url) == (
        "A paper",
        "table 1",
        "https://example.org/paper",
    )
    assert (full.checked, full.read_in, full.note) == (True, "the paper", "")
    assert (fid.checked, fid.note, fid.band, score.note) == (False, "of the figure", 0.5, "of the row")
    assert full.protocol.sampler.model_dump(exclude_none=True) == {"name": "ddim", "steps": 20}
    assert full.protocol.boundary_bits == "unknown"
    assert (fid.protocol.boundary_bits, fid.protocol.left_out) == (8, ("conv_*",))
    assert (fid.protocol.samples, fid.protocol.settings) == (100, {"split": True})


@pytest.mark.parametrize(
    ("change", "line", "problem"),
    [
        (("fid: 5.5", "fid: much"), 8, "valid number"),
        (("fid: 5.5", "fid: true"), 8, "valid number"),
        (("fid: 5.5", "fid: .nan"), 8, "finite number"),
        (("fid: 5.5", "fid: {value: 5.5, band: 0}"), 8, "greater than 0"),
        (("fid: 5.5", "fid: {value: 5.5, checked: true}"), 8, "'read_in' does not say where"),
        (("W4A8", "W1A8"), 8, "weight bits are not offered"),
        (("W4A8", "W32A32"), 8, "'full_precision'"),
        (("method: linear, ", ""), 8, "the key 'method' is missing"),
        (("bits: W4A8", "bits: W4A8, bit: 4"), 8, "did you mean 'bits'"),
        (("paper: A paper", "title: A paper"), None, "the key 'paper' is missing"),
        (("paper: A paper", "paper: A paper\nurl: javascript:alert(1)"), 3, "match pattern"),
        (("paper: A paper", 'paper: "\\ud800"'), 2, "no characters"),
        (("    full_", "    protocol: {samples: -1}\n    full_"), 6, "greater than or equal to 1"),
        (("    full_", "    protocol: {sampler: {step: 3}}\n    full_"), 6, "did you mean 'steps'"),
        (("    full_", "    methods: {linaer: {}}\n    full_"), 6, "no row of 'linaer'"),
        (("    full_", "    methods: {linear: {left_out: 3}}\n    full_"), 6, "left_out"),
        (("tables:", "tables:\n  - {table: table 1, workload: some-workload}"), None, "is there twice"),
        (("tables:", "tables: []\nothers:"), None, "tables"),
        (
            ("    rows:", "    rows:\n      - {method: linear, bits: W4A8, figures: {fid: 6}}"),
            None,
            "fid of 'linear' at W4A8",
        ),
        (("tables:", "tables: &tables\n  - *tables"), None, "contains itself"),
        (("A paper", "[A paper"), None, "not valid YAML"),
        (("A paper", "!!python/object/apply:os.system [id]"), None, "not valid YAML"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_place(
    read: Callable[[str], tuple[list[PublishedFigure], list[str]]],
    tmp_path: Path,
    change: tuple[str, str],
    line: int | None,
    problem: str,
) -> None:
    assert change[0] in SMALL
    figures, problems = read(SMALL.replace(*change, 1))
    assert figures == []
    assert len(problems) == 1
    assert problem in problems[0]
    assert problems[0].startswith(f"suites/published/small.yaml:{'' if line is None else f'{line} '}")
    assert str(tmp_path) not in problems[0]
    assert "\n" not in problems[0]


def test_a_wrong_file_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "right.yaml").write_text(SMALL, encoding="utf-8")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.yaml").write_text("", encoding="utf-8")
    (tmp_path / "folder.yaml").mkdir()
    names = ["binary", "right", "empty", "absent", "folder", "right"]
    figures, problems = read_published(names, [tmp_path])
    assert [figure.value for figure in figures] == [4.0, 5.5]
    assert [problem.split(":")[0] for problem in problems] == [
        f"suites/published/{name}.yaml" for name in ("binary", "empty", "absent", "folder")
    ]


VALUES = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_a_value_that_does_not_belong_there_is_a_problem_and_no_crash(
    read: Callable[[str], tuple[list[PublishedFigure], list[str]]], data: strategies.DataObject
) -> None:
    content = yaml.safe_load(SMALL)
    place: Any = content
    path = data.draw(strategies.lists(strategies.integers(0, 3), min_size=1, max_size=6))
    for step in path:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[step % len(keys)]
        if not isinstance(place[key], dict | list) or not place[key] or step == path[-1]:
            place[key] = data.draw(VALUES)
            break
        place = place[key]
    figures, problems = read(yaml.safe_dump(content, allow_unicode=False))
    assert len(problems) == (0 if figures else 1)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "a\n", "a/b", "..", "a.b", "x" * 10_000, "\0", "<b>"])
def test_a_name_that_is_no_name_reads_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "published").mkdir()
    (tmp_path / "secret.yaml").write_text(SMALL, encoding="utf-8")
    figures, problems = read_published([name], [tmp_path / "published"])
    assert figures == []
    assert len(problems) == 1
    assert "cannot be the name" in problems[0]
    assert len(problems[0]) < 200
    assert "\n" not in problems[0]


def test_files_beside_the_results_come_before_the_installed_ones(tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert published_folders(results) == SHIPPED
    beside = tmp_path / "suites" / "published"
    beside.mkdir(parents=True)
    (beside / "quest.yaml").write_text(SMALL, encoding="utf-8")
    folders = published_folders(results)
    assert folders == [beside, *SHIPPED]
    figures, _ = read_published(["quest", "tdq"], folders)
    assert [(figure.file, figure.value) for figure in figures] == [("quest", 4.0), ("quest", 5.5), ("tdq", 4.85)]


def test_names_are_those_of_the_records_each_once(make_record: Callable[..., Record]) -> None:
    suite = {"name": "micro", "title": "", "position": 0}
    records = [
        make_record(suite=suite | {"published": names}) for names in ([], ["quest", "q-diffusion"], ["q-diffusion"])
    ]
    assert published_names(records) == ["quest", "q-diffusion"]
