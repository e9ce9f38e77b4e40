from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from qbench.identity import digest
from qbench.records import Record
from qbench.results.published import Protocol, PublishedFigure, Source
from qbench.results.verdicts import Verdict, default_band, verdicts

SOURCE = Source("A paper", "table 1", "https://example.org")
INCEPTION = {"extractor": {"name": "inception", "published_weights": True}}
PROTOCOL: dict[str, Any] = {
    "samples": 50_000,
    "sampler": {"name": "ddim", "steps": 100, "eta": 0.0, "spacing": "quad"},
    "metrics": {"fid": INCEPTION, "is": INCEPTION, "sfid": INCEPTION},
}
SAMPLER = {"name": "ddim", "steps": 100, "eta": 0.0, "spacing": "quad"}
SETTINGS = {"calibration": {"kind": "uniform-steps", "steps": 20, "per_step": 256}, "split": True}
DIRECTIONS = {"fid": "lower", "sfid": "lower", "is": "higher"}


def measurement(metric: str, **extractor: Any) -> dict[str, Any]:
    """Return what a record says of a metric."""
    return {
        "title": metric,
        "direction": DIRECTIONS.get(metric, "lower"),
        "against": "real images",
        "protocol": "",
        "paper": "",
        "description": {
            "metric": {"name": metric, "settings": {}},
            "extractor": {"name": "inception", "settings": {}, "published_weights": True, **extractor},
            "reference": {"name": "real", "samples": 50_000},
        },
    }


def cell(
    method: str | None = "qdiffusion",
    bits: str = "W4A8",
    figures: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
    samples: int = 50_000,
    workload: str = "ddim-cifar10",
    sampler: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    boundary_bits: int | None = None,
    left_out: Sequence[str] = (),
    without: Sequence[float] = (),
    **changes: Any,
) -> Record:
    """Return the record of a complete cell of ddim-cifar10; without a method it is full precision."""
    full = {
        "workload": {"name": workload, "settings": {"sampler": dict(SAMPLER if sampler is None else sampler)}},
        "method": None,
        "bits": "W32A32",
        "boundary_bits": None,
        "seed": seed,
        "samples": samples,
    }
    own = {
        "method": {"name": method, "settings": dict(SETTINGS if settings is None else settings)},
        "bits": bits,
        "boundary_bits": boundary_bits,
    }
    description = full if method is None else full | own
    measured = {"fid": 4.22} if figures is None else figures
    values = {
        "suite": {"name": "paper_table1", "title": "", "position": 0},
        "workload": workload,
        "method": method,
        "label": method or "full-precision",
        "bits": "W32A32" if method is None else bits,
        "boundary_bits": boundary_bits,
        "seed": seed,
        "samples": samples,
        "status": "complete",
        "description": description,
        "digest": digest(description),
        "baseline": digest(full),
        "results": {},
        "metrics": {metric: measurement(metric) for metric in measured},
        "figures": {
            metric: {"value": value, "samples": samples, "without": list(without)} for metric, value in measured.items()
        },
        "profile": {"size_mb": 1.0, "coverage_macs": 1.0, "coverage_parameters": 1.0, "left_out": list(left_out)},
    }
    return Record.model_validate(values | changes)


def published(
    value: float,
    method: str | None = "qdiffusion",
    bits: str = "W4A8",
    metric: str = "fid",
    *,
    protocol: Mapping[str, Any] | None = None,
    **changes: Any,
) -> PublishedFigure:
    """Return a published figure of ddim-cifar10; ``protocol`` replaces items of ``PROTOCOL``."""
    values: dict[str, Any] = {
        "file": "a-paper",
        "method": method,
        "bits": "W32A32" if method is None else bits,
        "workload": "ddim-cifar10",
        "metric": metric,
        "value": value,
        "source": SOURCE,
        "protocol": Protocol.model_validate(PROTOCOL | dict(protocol or {})),
        "checked": True,
        "read_in": "the paper",
    }
    return PublishedFigure(**(values | changes))


FULL = published(4.22, None)


def judged(record: Record, figure: PublishedFigure, *others: Record | PublishedFigure) -> Verdict:
    """Return the verdict on one row, with full precision at the published value unless others are given."""
    records = [each for each in others if isinstance(each, Record)] or [cell(None, seed=record.seed)]
    figures = [each for each in others if isinstance(each, PublishedFigure)] or [FULL]
    found = [each for each in verdicts([*records, record], [*figures, figure]) if each.figure is figure]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("value", "kind"),
    [(4.93, "reproduced"), (5.17, "reproduced"), (4.69, "reproduced"), (5.19, "worse"), (4.67, "better")],
)
def test_a_distance_is_reproduced_within_a_quarter_and_else_lower_is_better(value: float, kind: str) -> None:
    verdict = judged(cell(figures={"fid": value}), published(4.93))
    assert (verdict.kind, verdict.measured, verdict.measured_metric, verdict.band) == (kind, value, "fid", 0.25)
    assert verdict.is_comparable
    assert "apart" in verdict.reasons[0]
    assert len(verdict.reasons) == 1


@pytest.mark.parametrize(("value", "kind"), [(9.0, "reproduced"), (8.4, "worse"), (9.6, "better")])
def test_of_a_score_higher_is_better_and_the_band_is_five_percent(value: float, kind: str) -> None:
    full = cell(None, figures={"fid": 4.3, "is": 9.2})
    row = cell(figures={"fid": 4.3, "is": value})
    verdict = judged(row, published(9.0, metric="is"), full, FULL, published(9.12, None, metric="is"))
    assert verdict.kind == kind
    assert verdict.band == pytest.approx(0.45)


def test_bands() -> None:
    assert default_band("fid", 4.0) == 0.25
    assert default_band("sfid", 100.0) == 5.0
    assert default_band("clean-fid", 0.0) == 0.25
    assert default_band("is", -2.0) == pytest.approx(0.1)
    verdict = judged(cell(figures={"fid": 6.0}), published(4.93, band=1.5))
    assert (verdict.kind, verdict.band) == ("reproduced", 1.5)


def test_our_interval_widens_the_band_of_a_row_and_never_the_gate() -> None:
    without = [5.4 + 0.05 * (-1) ** group for group in range(20)]  # half a width of about 0.46
    row = cell(figures={"fid": 5.35}, without=without)
    verdict = judged(row, published(4.93))
    assert verdict.kind == "reproduced"
    assert "within our interval" in verdict.reasons[0]
    assert judged(cell(figures={"fid": 5.35}, without=without[:5]), published(4.93)).kind == "worse"
    full = cell(None, figures={"fid": 4.6}, without=without)
    assert judged(row, published(4.93), full).kind == "not comparable"
    assert verdicts([full], [FULL])[0].kind == "worse"


def test_nothing_is_compared_while_full_precision_is_out_of_its_band() -> None:
    full = cell(None, figures={"fid": 4.60})
    row = cell(figures={"fid": 4.93})
    other = cell("linear", "W8A8", {"fid": 118.26})
    figures = [FULL, published(4.93), published(118.26, "linear", "W8A8")]
    found = verdicts([full, row, other], figures)
    assert [each.kind for each in found] == ["worse", "not comparable", "not comparable"]
    for verdict in found[1:]:
        assert verdict.reasons == (
            "full precision has fid 4.60 here and 4.22 in the source, outside its band of 0.25, so nothing of "
            "ddim-cifar10 is compared",
        )
        assert verdict.measured is not None


def test_the_gate_is_that_of_the_same_source_and_of_every_metric_that_both_have() -> None:
    elsewhere = Source("Another paper", "table 1")
    full = cell(None, figures={"fid": 4.22, "is": 7.0})
    row = cell(figures={"fid": 4.93, "is": 9.0})
    of_is = published(9.12, None, metric="is")
    assert judged(row, published(4.93), full, FULL).kind == "reproduced"
    closed = judged(row, published(4.93), full, FULL, of_is)
    assert closed.kind == "not comparable"
    assert "full precision has is 7.00 here and 9.12 in the source" in closed.reasons[0]
    unmeasured = judged(row, published(4.93), full, FULL, published(7.0, None, metric="sfid"))
    assert unmeasured.kind == "reproduced"
    for other in (published(9.0, None, source=elsewhere), published(9.0, None, file="another")):
        assert judged(row, published(4.93), full, FULL, other).kind == "reproduced"
        assert judged(row, published(4.93), full, other).reasons == (
            "the source has no full-precision fid for ddim-cifar10",
        )


def test_a_metric_without_full_precision_of_its_own_is_not_compared() -> None:
    row = cell(figures={"fid": 4.93, "sfid": 7.0})
    verdict = judged(row, published(7.0, metric="sfid"), cell(None, figures={"fid": 4.22, "sfid": 7.0}), FULL)
    assert verdict.reasons == ("the source has no full-precision sfid for ddim-cifar10",)
    verdict = judged(row, published(7.0, metric="sfid"), FULL, published(7.0, None, metric="sfid"))
    assert verdict.reasons == ("full precision: sfid is not measured here",)


def test_the_gate_needs_the_full_precision_of_the_same_run() -> None:
    row, figure = cell(figures={"fid": 4.93}), published(4.93)
    assert judged(row, figure, cell(None, seed=1)).reasons == (
        "this run has no full-precision row of seed 0 to judge by",
    )
    assert judged(row, figure, cell(None, samples=10_000)).kind == "not comparable"
    waiting = cell(None).model_copy(update={"figures": {}, "status": "pending"})
    assert judged(row, figure, waiting).reasons == ("full precision: not run yet",)
    failed = cell(None).model_copy(update={"figures": {}, "status": "failed", "failures": {"fid": "no weights"}})
    assert judged(row, figure, failed).reasons == ("full precision: fid failed here (no weights)",)
    other = cell(None, metrics={"fid": measurement("fid", revision=2)})
    assert "measured in another way" in judged(row, figure, other).reasons[0]


def test_each_seed_is_judged_by_its_own_full_precision() -> None:
    records = [
        cell(None, seed=0),
        cell(None, figures={"fid": 5.0}, seed=1),
        cell(figures={"fid": 4.93}, seed=0),
        cell(figures={"fid": 4.93}, seed=1),
    ]
    found = [each for each in verdicts(records, [FULL, published(4.93)]) if each.figure.method]
    assert [(each.record.seed, each.kind) for each in found if each.record] == [
        (0, "reproduced"),
        (1, "not comparable"),
    ]


def test_an_unchecked_gate_is_told() -> None:
    verdict = judged(cell(figures={"fid": 4.93}), published(4.93), published(4.22, None, checked=False))
    assert verdict.kind == "reproduced"
    assert verdict.reasons[1:] == ("judged by a full-precision figure that nobody checked (fid)",)
    closed = judged(cell(figures={"fid": 4.93}), published(4.93), published(9.22, None, checked=False))
    assert "9.22 in the source (unchecked), outside its band of 0.46" in closed.reasons[0]


@pytest.mark.parametrize(
    ("changes", "protocol", "reason"),
    [
        ({"samples": 10_000}, {}, "10,000 images here, 50,000 in the source"),
        ({}, {"samples": None}, "the source does not tell how many images"),
        ({"sampler": SAMPLER | {"steps": 20}}, {}, "number of steps 20 here, 100 in the source"),
        ({}, {"sampler": {}}, "the source does not tell how many steps"),
        ({"sampler": SAMPLER | {"eta": 1.0}}, {}, "eta 1 here, 0 in the source"),
        (
            {"sampler": {"name": "ddim", "steps": 100, "eta": 0}},
            {},
            "spacing of the steps uniform here, quad in the source",
        ),
        ({"sampler": SAMPLER | {"name": "plms"}}, {}, "sampler plms here, ddim in the source"),
        ({}, {"sampler": {"steps": 100, "guidance_scale": 7.5}}, "guidance scale 1 here, 7.5 in the source"),
        ({"sampler": {"name": "ddim", "steps": 100, "spacing": "quad"}}, {}, "eta none here, 0 in the source"),
        ({"sampler": {}}, {}, "how images were sampled here is not told"),
        ({}, {"metrics": {}}, "the source does not tell how fid was measured"),
        (
            {"metrics": {"fid": measurement("fid", name="inception-clean")}},
            {},
            "fid: extractor.name inception-clean here, inception in the source",
        ),
        (
            {"metrics": {"fid": measurement("fid", published_weights=False)}},
            {},
            "fid: extractor.published_weights no here, yes in the source",
        ),
        ({"boundary_bits": 8}, {}, "first and last layer at 8 bits here, of which the source tells nothing"),
        (
            {"boundary_bits": 8},
            {"boundary_bits": None},
            "first and last layer at 8 bits here, no exception in the source",
        ),
        ({}, {"boundary_bits": 8}, "no exception for the first and last layer here, 8 bits in the source"),
        ({"boundary_bits": 6}, {"boundary_bits": 8}, "first and last layer at 6 bits here, 8 bits in the source"),
        ({"left_out": ["conv_in"]}, {}, "conv_in left out here, of which the source tells nothing"),
        ({"left_out": list("abcde")}, {"left_out": []}, "a, b, c and 2 more left out here, not in the source"),
        ({}, {"left_out": ["*.conv_shortcut"]}, "*.conv_shortcut left out in the source, not here"),
        ({"profile": None}, {}, "which layers were left out here is not known"),
        (
            {"settings": {"calibration": {"steps": 20, "per_step": 64}, "split": True}},
            {"settings": {"calibration": {"steps": 20, "per_step": 256}, "split": 1, "rounding": {"iterations": 20}}},
            "settings: calibration.per_step 64 here, 256 in the source; split yes here, 1 in the source; "
            "rounding.iterations none here, 20 in the source",
        ),
        ({"bits": "W4A8S16"}, {}, "softmax output at 16 bits here, of no bits of its own in the source"),
        ({}, {"obstacle": "the model is another one"}, "the model is another one"),
    ],
)
def test_what_was_made_in_another_way_is_not_compared(
    changes: dict[str, Any], protocol: dict[str, Any], reason: str
) -> None:
    row = cell(**{"figures": {"fid": 4.93}, **changes})
    same = {key: value for key, value in changes.items() if key in ("samples", "sampler", "metrics")}
    full = cell(None, **same)
    verdict = judged(row, published(4.93, protocol=protocol), full)
    assert verdict.kind == "not comparable"
    assert verdict.reasons[0] == reason
    assert verdict.measured == 4.93


@pytest.mark.parametrize(
    ("changes", "protocol"),
    [
        ({"bits": "W8A8", "boundary_bits": 8}, {"boundary_bits": None}),
        ({"bits": "W8A8"}, {"boundary_bits": 8}),
        ({"bits": "W32A8", "boundary_bits": 8}, {}),
        ({"left_out": ["a.conv_shortcut"]}, {"left_out": ["*.conv_shortcut"]}),
        ({"settings": {"split": True, "more": 1}}, {"settings": {"split": True}}),
        ({}, {"sampler": {"steps": 100, "guidance_scale": 1}}),
    ],
)
def test_what_only_looks_different_is_compared(changes: dict[str, Any], protocol: dict[str, Any]) -> None:
    row = cell(**{"figures": {"fid": 4.93}, **changes})
    assert judged(row, published(4.93, bits=row.bits, protocol=protocol)).kind == "reproduced"


def test_all_reasons_are_told() -> None:
    row = cell(figures={"fid": 4.93}, samples=10_000, boundary_bits=8, left_out=["conv_in"])
    verdict = judged(row, published(4.93), cell(None, figures={"fid": 9.0}, samples=10_000))
    starts = ("10,000 images", "first and last layer", "conv_in left out", "full precision has fid 9.00")
    assert len(verdict.reasons) == len(starts)
    assert all(reason.startswith(start) for reason, start in zip(verdict.reasons, starts, strict=True))


STANDIN = {"workload": "ddim-cifar10", "metrics": {"fid": "fd-fashion"}}


def test_a_stand_in_is_never_compared_and_its_figure_stands_beside() -> None:
    """Not even where everything else, and the figure itself, agrees."""
    full = cell(None, figures={"fd-fashion": 4.22}, workload="tiny-ddim", stands_in_for=STANDIN)
    row = cell(figures={"fd-fashion": 4.93}, workload="tiny-ddim", stands_in_for=STANDIN)
    found = verdicts([full, row], [FULL, published(4.93), published(9.12, metric="is")])
    assert [each.kind for each in found] == ["not comparable"] * 3
    assert [(each.measured_metric, each.measured) for each in found] == [
        ("fd-fashion", 4.22),
        ("fd-fashion", 4.93),
        ("is", None),
    ]
    assert found[1].reasons == ("tiny-ddim stands in for ddim-cifar10, and fd-fashion for fid",)
    assert found[2].reasons == ("tiny-ddim stands in for ddim-cifar10", "is is not measured here")


def test_what_is_not_there_is_told() -> None:
    figures = [FULL, published(4.93), published(3.26, "quest"), published(1.0, workload="sd-v1-4")]
    pending = cell().model_copy(update={"figures": {}, "status": "pending"})
    found = verdicts([cell(None), pending], figures)
    assert [each.figure for each in found] == figures[:3]
    assert [each.reasons for each in found[1:]] == [("not run yet",), ("not run here",)]
    assert found[2].record is None
    failed = cell().model_copy(update={"figures": {}, "status": "failed", "reason": "out of memory", "profile": None})
    assert judged(failed, published(4.93)).reasons == ("failed here (out of memory)",)
    assert verdicts([], figures) == []


def test_each_label_of_a_method_is_a_row_of_its_own() -> None:
    records = [cell(None), cell(label="a"), cell(label="b", settings={"split": False}), cell("linear")]
    figure = published(4.22, protocol={"settings": {"split": True}})
    found = [each for each in verdicts(records, [FULL, figure]) if each.figure is figure]
    assert [(each.record.label, each.kind) for each in found if each.record] == [
        ("a", "reproduced"),
        ("b", "not comparable"),
    ]


def test_a_row_of_the_published_softmax_bits_is_preferred() -> None:
    records = [cell(None), cell(), cell(bits="W4A8S16")]
    found = [each for each in verdicts(records, [FULL, published(4.22)]) if each.figure.method]
    assert [each.record.bits for each in found if each.record] == ["W4A8"]


def test_strange_records_break_nothing() -> None:
    strange = [
        cell().model_copy(update={"metrics": {}}),
        cell().model_copy(update={"description": {}}),
        cell().model_copy(update={"description": {"workload": "ddim-cifar10"}}),
        cell().model_copy(update={"bits": "<script>"}),
        cell().model_copy(update={"description": {"workload": {"name": "ddim-cifar10", "settings": 3}}}),
        cell(figures={"fid": 1e308}, without=[(-1) ** group * 1e308 for group in range(20)]),
    ]
    figure = published(4.93, protocol={"settings": {"split": [16**5000], "calibration": 16**5000}})
    for record in strange:
        for verdict in verdicts([cell(None), record], [FULL, figure, published(4.93)]):
            assert all(len(reason) < 1000 for reason in verdict.reasons)
