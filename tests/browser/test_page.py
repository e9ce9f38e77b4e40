"""The page in a real browser: from a file, without a network, with names that want to be more than text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
VIEWS = ("overview", "table", "tradeoff", "curves", "images", "published", "notes", "cell/micro/micro.plain.W4A8.s0")
Open = Callable[..., Any]

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def texts(browser: Any, selector: str) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)", selector
    )
    return found


def click(browser: Any, selector: str) -> None:
    browser.find_element("css selector", selector).click()


def choose(browser: Any, label: str, value: str) -> None:
    browser.execute_script(
        "const control = [...document.querySelectorAll('.control')]"
        ".find((each) => each.firstChild.textContent === arguments[0]);"
        "const select = control.querySelector('select'); select.value = arguments[1];"
        "select.dispatchEvent(new Event('change'))",
        label,
        value,
    )


def rows(browser: Any) -> list[str]:
    """Return the method and bits of each row of the table."""
    return [
        " ".join(row)
        for row in browser.execute_script(
            "return [...document.querySelectorAll('.results tbody tr:not(.group)')]"
            ".map((row) => [row.cells[0].firstChild.textContent, row.cells[1].textContent])"
        )
    ]


def press(browser: Any, key: str) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.switch_to.active_element.send_keys(getattr(Keys, key))


def requests(browser: Any) -> list[str]:
    """Return the addresses of everything that the page asked for since this was last asked."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [each for each in messages if each["method"] == "Network.requestWillBeSent"]
    return [each["params"]["request"]["url"] for each in sent if each["params"]["documentURL"].startswith("file:")]


def test_every_view_opens_from_a_file_without_errors_or_requests(open_page: Open) -> None:
    for view in VIEWS:
        browser = open_page(f"#{view}")
        assert len(texts(browser, "h1")) == 1
        assert "[object" not in browser.find_element("tag name", "body").text
        assert browser.get_log("browser") == []
        asked = requests(browser)
        assert all(url.split(":")[0] in ("file", "data") for url in asked), asked
        assert sum(url.startswith("file:") for url in asked) == 1


def test_names_of_records_stay_text(open_page: Open) -> None:
    for view in VIEWS:
        browser = open_page(f"#{view}")
        browser.execute_async_script("setTimeout(arguments[0], 50)")
        assert browser.execute_script("return window.stolen") is None
        assert browser.execute_script("return document.querySelectorAll('script').length") == 2
        assert browser.execute_script("return document.querySelectorAll('main img, main b').length") == 0
        assert browser.execute_script("return document.querySelectorAll('[href^=\"javascript\" i]').length") == 0
    assert any("<script>window.stolen = 1</script>" in text for text in texts(open_page("#table"), ".results th"))
    assert "a shirt </script><script>" in texts(open_page("#images"), "#caption")[0]
    assert "A paper <script>" in texts(open_page("#published"), ".published td")[5]


def test_the_overview_says_who_wins(open_page: Open) -> None:
    browser = open_page()
    assert texts(browser, ".board tbody th") == ["W8A32", "W4A8"]
    assert texts(browser, ".board .winner")[0].startswith("<img src=x")
    told = texts(browser, ".board .sub")
    assert any(text.startswith("not competing: broken (failed") for text in told)
    assert any(text.startswith("not competing: later (not run") for text in told)


def test_the_table_sorts_and_says_so(open_page: Open) -> None:
    browser = open_page("#table?seed=0")
    papers = rows(browser)
    assert papers[0].startswith("full-precision")
    click(browser, "button[data-sort=distance]")
    first = rows(browser)
    header = "th:has(button[data-sort=distance])"
    assert browser.find_element("css selector", header).get_attribute("aria-sort") == "ascending"
    assert first[0].startswith("<img")
    assert [row.split()[0] for row in first[-2:]] == ["broken", "later"]
    assert browser.switch_to.active_element.get_attribute("data-sort") == "distance"
    press(browser, "ENTER")  # the focus stays on the header, so that the keyboard sorts too
    assert browser.find_element("css selector", header).get_attribute("aria-sort") == "descending"
    assert rows(browser)[0] == "plain W8A32"
    press(browser, "ENTER")
    assert rows(browser) == papers


def test_the_table_filters_and_keeps_that_in_its_address(open_page: Open) -> None:
    browser = open_page("#table")
    everything = len(rows(browser))
    assert everything == 20
    choose(browser, "Bits", "W4A8")
    choose(browser, "Seed", "1")
    assert len(rows(browser)) == 4
    assert texts(browser, ".count") == ["4 of 20 rows"]
    browser.find_element("id", "search").send_keys("better")
    assert rows(browser) == ["better W4A8"]
    assert "q=better" in browser.current_url
    browser.refresh()
    assert rows(browser) == ["better W4A8"]
    choose(browser, "Seed", "mean")
    assert rows(browser) == ["better W4A8"]
    choose(browser, "Status", "failed")
    assert texts(browser, ".results td") == ["No row agrees with these filters."]


def test_failed_and_missing_cells_are_seen(open_page: Open) -> None:
    browser = open_page("#table?status=failed")
    assert "the image is not finite <script>" in texts(browser, ".results tbody th .bad")[0]
    assert "failed" in texts(browser, ".results td.number .bad")
    assert "not run" in " ".join(texts(open_page("#table?status=pending"), ".results tbody"))
    assert "bad file <script>" in texts(open_page("#notes"), ".problems li")[0]


def test_a_cell_opens_and_back_leads_to_the_table(open_page: Open) -> None:
    browser = open_page("#table?bits=W4A8&seed=0")
    before = rows(browser)
    browser.find_element("link text", "better").click()
    assert texts(browser, "h1") == ["better W4A8"]
    assert browser.title == "better W4A8 - qbench results"
    assert browser.execute_script("return document.activeElement.id") == "main"
    assert texts(browser, ".command code") == [
        "qbench run micro --only workload=micro --only method=better --only bits=W4A8 --only seed=0"
    ]
    click(browser, "#copy")
    said = {"Copied", "Selected"}
    assert (
        browser.execute_async_script(
            "const done = arguments[0]; setTimeout(() => done(document.getElementById('copy').textContent), 100)"
        )
        in said
    )
    browser.back()
    assert rows(browser) == before


def test_images_are_stepped_through_by_button_and_by_key(open_page: Open) -> None:
    browser = open_page("#images")
    drawn = "return document.querySelector('.matrix canvas').toDataURL()"
    settle = "setTimeout(arguments[0], 100)"
    browser.execute_async_script(settle)
    first = browser.execute_script(drawn)
    assert texts(browser, "#sample-number") == ["1"]
    click(browser, "#next")
    assert texts(browser, "#sample-number") == ["2"]
    assert texts(browser, "#caption") == ["“second”"]
    browser.execute_async_script(settle)
    assert browser.execute_script(drawn) != first
    press(browser, "ARROW_RIGHT")
    assert texts(browser, "#sample-number") == ["3"]
    press(browser, "ARROW_RIGHT")
    press(browser, "ARROW_LEFT")
    assert texts(browser, "#sample-number") == ["3"]
    click(browser, "#previous")
    assert "sample=1" in browser.current_url


def test_points_of_the_plot_are_told_to_the_keyboard(open_page: Open) -> None:
    browser = open_page("#tradeoff")
    browser.execute_script("document.querySelector('.point').focus()")
    told = texts(browser, "#tooltip")[0]
    press(browser, "ARROW_RIGHT")
    assert texts(browser, "#tooltip")[0] != told
    assert browser.execute_script("return document.querySelectorAll('.point[tabindex=\"0\"]').length") == 1
    assert "distance" in browser.switch_to.active_element.get_attribute("aria-label")
    assert "rgb" in browser.execute_script("return getComputedStyle(document.querySelector('.marker')).fill")


def test_lines_of_the_curves_can_be_left_out(open_page: Open) -> None:
    browser = open_page("#curves?bits=W4A8&seed=0")
    assert len(texts(browser, ".curve")) == 2 * 4
    click(browser, ".line-name input")
    assert len(texts(browser, ".curve")) == 2 * 3
    browser.find_element("css selector", "input[type=range]").send_keys("0")
    step = texts(browser, ".step-label")[0]
    click(browser, "input[type=range]")
    press(browser, "HOME")
    assert texts(browser, ".step-label") == ["step 0, t = 1000"]
    assert step.startswith("step 3")


def test_a_phone_need_not_scroll_sideways(open_page: Open, browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    for view in VIEWS:
        open_page(f"#{view}")
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= PHONE["width"], view


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_page: Open, browser: Any, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    open_page("#table")
    ratios = browser.execute_script(CONTRASTS)
    assert min(ratios[name] for name in ("--ink", "--muted", "--link", "--good", "--bad")) >= 4.5
    assert min(ratio for name, ratio in ratios.items() if name.startswith("--c")) >= 3


CONTRASTS = """
const style = getComputedStyle(document.documentElement);
const light = (name) => {
  const hex = style.getPropertyValue(name).trim();
  const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
  const [red, green, blue] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const names = ["--ink", "--muted", "--link", "--good", "--bad", ...Array.from({ length: 8 }, (_, nth) => `--c${nth}`)];
const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
const grounds = ["--paper", "--wash"].map(light);
return Object.fromEntries(names.map((name) => [name, Math.min(...grounds.map((each) => ratio(light(name), each)))]));
"""


def test_print_shows_every_row_and_no_controls(open_page: Open) -> None:
    browser = open_page("#table")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert len(rows(browser)) == 20
    assert not browser.find_element("class name", "controls").is_displayed()
    assert not browser.find_element("class name", "bar").is_displayed()


def test_an_address_that_leads_nowhere_says_so(open_page: Open) -> None:
    assert texts(open_page("#cell/micro/none"), "h1") == ["There is no such cell"]
    assert texts(open_page("#%E0%A4%A"), "h1") == ["There is no such view"]


def test_a_published_figure_stands_beside_ours_with_its_verdict(open_page: Open) -> None:
    browser = open_page("#table")
    found = browser.execute_script(
        "return [...document.querySelectorAll('.results tbody tr')]"
        ".filter((row) => row.textContent.includes('published')).map((row) => row.textContent)"
    )
    assert len(found) == 1
    assert "published 1.5 (unchecked): reproduced" in found[0]
