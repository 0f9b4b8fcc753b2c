"""The page in Chromium: on a desktop and on a phone, light and dark, sorted by click and by key, with its data."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smx.reporting.findings import findings
from smx.reporting.page.render import parts_of, render
from tests.reporting.made import rows, study_of, undone

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking", "disable-sync")
SCREENS = [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark"), (320, "light")]
LIGHT, DARK = 200, 60
"""A background that is light is above the first, a dark one below the second, of 255."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    downloads = tmp_path_factory.mktemp("downloads")
    for flag in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver: Any = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.downloads = downloads
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page of a study: the one that SMX_REPORT names, or one whose numbers nobody trained."""
    if "SMX_REPORT" in os.environ:
        return Path(os.environ["SMX_REPORT"]).absolute()
    made = rows()
    made[3] = undone(made[3], "a reason of " + 10_000 * "x")
    study = study_of(made)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(study, findings(study), parts_of(study)))
    return path


def opened(browser: Any, page: Path, width: int, scheme: str = "light") -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in wanted.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def brightness(browser: Any, element: str, what: str) -> float:
    """Return how bright a computed colour is, 0 to 255."""
    code = f"return getComputedStyle(document.querySelector({element!r})).{what}"
    numbers = browser.execute_script(code).removeprefix("rgb(").removesuffix(")").split(",")
    return sum(map(float, numbers)) / len(numbers)


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_it_fits_every_screen(browser: Any, page: Path, width: int, scheme: str) -> None:
    opened(browser, page, width, scheme)
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    across, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert across <= inner == width
    wide = """return [...document.querySelectorAll("body *")].filter((each) => !each.closest(".scroll > *") &&
        each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.outerHTML.slice(0, 200))"""
    assert browser.execute_script(wide) == []
    figures = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].map((each) => [each.clientWidth, each.clientHeight])"
    )
    assert len(figures) >= 13
    assert min(min(size) for size in figures) > 40
    background, ink = (brightness(browser, "body", what) for what in ("backgroundColor", "color"))
    assert background > LIGHT if scheme == "light" else background < DARK
    assert ink < DARK if scheme == "light" else ink > LIGHT
    drawn = brightness(browser, "figure svg text", "fill")
    assert drawn == pytest.approx(ink)
    assert errors(browser) == []


def test_colours_of_activations_are_lighter_in_the_dark(browser: Any, page: Path) -> None:
    shades = []
    for scheme in ("light", "dark"):
        opened(browser, page, 1280, scheme)
        shades.append(brightness(browser, '#figure-shares path[style*="fill: var(--c-relu,"]', "fill"))
    assert shades[0] < shades[1]


def test_tables_sort_by_click_and_by_key(browser: Any, page: Path) -> None:
    from selenium.webdriver import Keys

    opened(browser, page, 1280)
    table = browser.find_element("css selector", "#table-accuracy table")
    buttons = table.find_elements("css selector", "th button")

    def column(k: int) -> list[str]:
        code = "return [...arguments[0].tBodies[0].rows].map((row) => row.cells[arguments[1]].dataset.key)"
        return list(browser.execute_script(code, table, k))

    before = [float(key) for key in column(1)]
    assert len(before) == 3
    buttons[1].click()
    assert [float(key) for key in column(1)] == sorted(before)
    buttons[1].click()
    assert [float(key) for key in column(1)] == sorted(before, reverse=True)
    buttons[0].send_keys(Keys.ENTER)
    assert column(0) == ["24", "24-16", "24-16-8"]
    buttons[0].send_keys(Keys.SPACE)
    assert column(0) == ["24-16-8", "24-16", "24"]
    marked = "return [...arguments[0].querySelectorAll('th')].map((each) => each.getAttribute('aria-sort'))"
    assert [mark for mark in browser.execute_script(marked, table) if mark] == ["descending"]
    assert errors(browser) == []


def test_what_is_missing_comes_last_both_ways(browser: Any, page: Path) -> None:
    opened(browser, page, 1280)
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    table = browser.find_element("css selector", "#table-tests table")
    button = next(
        each for each in table.find_elements("css selector", "th button") if each.text.strip(" ↕↑↓\xa0") == "p"
    )
    keys = """const column = arguments[1].parentElement.cellIndex;
        return [...arguments[0].tBodies[0].rows].map((row) => row.cells[column].dataset.key)"""
    for _ in range(2):
        button.click()
        found = browser.execute_script(keys, table, button)
        known = [key for key in found if key]
        assert found == known + [""] * (len(found) - len(known))
        assert len(known) > 2


def test_data_are_downloaded_from_the_page(browser: Any, page: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    opened(browser, page, 1280)
    browser.find_element("css selector", "#figure-mrr a[download]").click()
    file = browser.downloads / "mrr.csv"
    WebDriverWait(browser, 30).until(lambda _: file.exists() and file.stat().st_size > 0)
    assert file.read_text().startswith("method,mrr,low,high")
    assert errors(browser) == []


def test_it_asks_for_no_network(browser: Any, page: Path) -> None:
    import json

    browser.get_log("performance")
    opened(browser, page, 1280)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in sent if not url.startswith("data:")} == {page.as_uri()}


def test_it_prints_with_all_details(page: Path, tmp_path: Path) -> None:
    printed = tmp_path / "report.pdf"
    flags = [f"--{flag}" for flag in FLAGS]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'p'}", f"--print-to-pdf={printed}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert printed.read_bytes().startswith(b"%PDF")
    assert printed.read_bytes().count(b"/Type /Page\n") > 3
