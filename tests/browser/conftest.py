"""A page of made-up records with hostile names, and a browser to look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest

from qbench.identity import digest
from qbench.records import Record
from qbench.results.best import contests
from qbench.results.page.data import page_data
from qbench.results.page.document import write_page
from qbench.results.published import Protocol, PublishedFigure, Source
from qbench.results.reading import SuiteResults
from qbench.results.strips import strip, strip_path
from qbench.results.verdicts import Verdict

SCRIPT = "<script>window.stolen = 1</script>"
IMAGE = "<img src=x onerror='window.stolen = 2'>"
CAPTION = f"a shirt </script>{SCRIPT}<b>bold</b>"
LABELS = ("plain", "better", SCRIPT, IMAGE)
BITS = ("W8A32", "W4A8")
STEPS = 6
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,900",
)


def make_record(label: str, bits: str, seed: int, position: int, workload: str = "micro", **changes: Any) -> Record:
    """Return the record of a complete cell; a later label has a lower error."""
    full = label == "full-precision"
    shared = {"workload": {"settings": {"sampler": {"name": "ddim", "steps": STEPS, "eta": 0.0}}}, "seed": seed}
    baseline = shared | {"method": None, "bits": "W32A32"}
    description = baseline if full else shared | {"method": {"name": label, "note": IMAGE}, "bits": bits}
    error = 4.0 / (1 + position)
    groups = [error + 0.001 * group for group in range(20)]
    difference = {} if full else {"delta": error - 1, "low": error - 1.1, "high": error - 0.9}
    metric = {"title": "T " + IMAGE, "direction": "lower", "protocol": "P", "paper": "", "description": {}}
    return Record.model_validate(
        {
            "suite": {"name": "micro", "title": f"A title </script>{SCRIPT}", "position": position, "file": "micro"},
            "workload": workload,
            "method": None if full else label,
            "label": label,
            "bits": bits,
            "boundary_bits": None if full else 8,
            "seed": seed,
            "samples": 40,
            "status": "complete",
            "description": description,
            "digest": digest(description),
            "baseline": digest(baseline),
            "results": {"distance": digest([label, bits, seed])},
            "metrics": {"distance": metric | {"against": "real images"}},
            "figures": {
                "distance": {"value": 1.0 if full else error, "samples": 40, "without": groups} | difference,
            },
            "profile": {
                "size_mb": 2.0 if full else int(bits[1]) / 8,
                "coverage_macs": 0.0 if full else 1.0,
                "coverage_parameters": 0.0 if full else 1.0,
                "left_out": [] if full else [f"layer {IMAGE}"],
            },
            "curve": None
            if full
            else {
                "samples": 8,
                "step_index": list(range(STEPS)),
                "timestep": list(range(1000, 1000 - STEPS, -1)),
                "teacher_forced": [0.01 * error * (1 + step) for step in range(STEPS)],
                "free_running": [0.0, *(0.02 * error * (1 + step) for step in range(STEPS))],
            },
            "stages": [{"stage": "weights", "digest": "0" * 64, "seconds": 1.0 + position, "peak_memory_mb": 9.0}],
            "environment": {"device": IMAGE, "versions": {"python": "3"}},
        }
        | changes
    )


def hostile_records() -> list[Record]:
    """Return full precision, every label at every bits with two seeds, a failed cell and one that is pending."""
    records = []
    for seed in (0, 1):
        records.append(make_record("full-precision", "W32A32", seed, 0))
        keys = [(label, bits) for bits in BITS for label in LABELS]
        records += [make_record(label, bits, seed, 1 + nth) for nth, (label, bits) in enumerate(keys)]
    reason = f"the image is not finite {SCRIPT}"
    lost = {"figures": {}, "failures": {"distance": reason}, "curve": None}
    records.append(make_record("broken", "W4A8", 0, 20, status="failed", reason=reason, **lost))
    records.append(make_record("later", "W4A8", 0, 21, status="pending", figures={}, curve=None))
    return records


def put_strips(records: list[Record], folder: Path) -> None:
    """Write images of every cell whose name a file can have."""
    for nth, record in enumerate(records):
        if "/" in record.label:
            continue
        images = np.random.default_rng(nth).integers(0, 256, (3, 1, 8, 8), np.uint8)
        path = strip_path(folder, record)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(strip(images, record.digest, [CAPTION, "second", "third"]))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a page of hostile records."""
    folder = tmp_path_factory.mktemp("results") / "micro"
    records = hostile_records()
    put_strips(records, folder)
    found = SuiteResults(folder, tuple(records), (), ())
    figure = PublishedFigure(
        file="f", method="plain", bits="W4A8", workload="real", metric="distance", value=1.5,
        source=Source(f"A paper {SCRIPT}", "table 1", "javascript:window.stolen = 3"), protocol=Protocol(), band=0.5,
    )  # fmt: skip
    verdict = Verdict(figure, records[5], "distance", 1.25, "reproduced", (f"within {IMAGE}",), 0.5)
    path = folder.parent / "index.html"
    of_suite = {"micro": [verdict]}, {"micro": contests(records, ["distance"])}
    write_page(path, page_data([found], *of_suite, [f"bad file {SCRIPT}"]))
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a browser without a window; skip where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    chromium = which("chromium") or which("chromium-browser") or which("google-chrome")
    driver = which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with its chromedriver is installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield started
    finally:
        started.quit()


@pytest.fixture
def open_page(browser: Any, page: str) -> Iterator[Callable[[str], Any]]:
    """Return a function that opens the page at an address within it and returns the browser."""

    def go(address: str = "") -> Any:
        browser.get("about:blank")  # or a change of the address would open nothing anew
        browser.get(page + address)
        return browser

    yield go
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
