"""The page in Chromium: a digit is drawn with the pointer and with keys, and recognised by server and browser."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import smx
from tests.edited import loaded
from tests.runtime.serving.process import Running, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
WEB_RUNTIME = Path(
    os.environ.get("SMX_WEB_RUNTIME", Path(__file__).parents[2] / "portability/node_modules/onnxruntime-web/dist")
)
FLAGS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
)
KEY = "chromium-has-the-key"
WAIT = 60
"""Seconds at most for what the page does; it is there much sooner."""

pytestmark = [
    pytest.mark.serving,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
    pytest.mark.timeout(900),
]

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SEVEN = [(0.3, 0.2), (0.5, 0.2), (0.7, 0.2), (0.62, 0.4), (0.54, 0.6), (0.46, 0.85)]
ZERO = [(0.5 + 0.2 * math.sin(k * math.pi / 12), 0.5 - 0.33 * math.cos(k * math.pi / 12)) for k in range(25)]


class Page:
    """The page in a browser of its own, which talks to nobody by itself."""

    def __init__(self, profile: Path) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM or ""
        for flag in FLAGS:
            options.add_argument(f"--{flag}")
        options.add_argument(f"--user-data-dir={profile}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver: Any = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        self.driver.get("data:,")  # instead of the browser's own first page
        self.requests()

    def open(self, url: str, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
        self.driver.get(url)

    def run(self, code: str) -> Any:
        return self.driver.execute_script(code)

    def element(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    def text(self, name: str) -> str:
        return str(self.element(name).text)

    def wait(self, condition: Callable[[], Any]) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, WAIT).until(lambda _: condition())

    def draw(self, points: list[tuple[float, float]]) -> None:
        from selenium.webdriver import ActionChains

        pad = self.element("pad")
        self.run("document.getElementById('pad').scrollIntoView({block: 'center'})")
        width, height = pad.size["width"], pad.size["height"]
        actions = ActionChains(self.driver, duration=5)
        for i, (x, y) in enumerate(points):
            actions.move_to_element_with_offset(pad, round((x - 0.5) * width), round((y - 0.5) * height))
            if i == 0:
                actions.click_and_hold()
        actions.release().perform()

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def settled(self) -> dict[str, float]:
        """Return the server's probabilities when they change no more."""
        last: list[Any] = [None]

        def same() -> bool:
            before, last[0] = last[0], self.shares()
            return bool(last[0] and before == last[0])

        self.wait(same)
        return dict(last[0])

    def shows(self, digit: str) -> None:
        """Wait until the page says that this is the digit."""
        self.wait(lambda: self.text("verdict").startswith(digit))

    def shares(self) -> dict[str, float]:
        rows: list[tuple[str, str]] = self.run(
            "return [...document.querySelectorAll('#classes li')]"
            ".map(row => [row.children[0].textContent, row.children[2].children[0].textContent])"
        )
        return {name: float(share.split()[0]) / 100 for name, share in rows if share}

    def requests(self) -> set[str]:
        """Return the addresses that were asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return {url for url in sent if not url.startswith("data:")}

    def errors(self) -> list[str]:
        entries: list[dict[str, Any]] = self.driver.get_log("browser")
        return [entry["message"] for entry in entries]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that knows digits: the one that SMX_PAGE_MODEL names, or one of scikit-learn's, trained here."""
    if "SMX_PAGE_MODEL" in os.environ:
        return Path(os.environ["SMX_PAGE_MODEL"])
    folder = tmp_path_factory.mktemp("digits")
    epochs = ("--phase1-epochs", "15", "--phase2-epochs", "15", "--lr", "0.003", "--device", "cpu")
    for command in (
        ("train", "--hidden", "96,48", *epochs, "--out", folder / "run"),
        ("export", folder / "run" / "model.pt", folder / "digits.onnx", "--layout", "sorted"),
    ):
        result = smx(*command)
        assert result.returncode == 0, result.stderr
    return folder / "digits.onnx"


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Running]:
    """Return a server, with onnxruntime-web where it is at hand."""
    options = ("--web-runtime", WEB_RUNTIME) if WEB_RUNTIME.is_dir() else ()
    with serving(model, *options, grpc=False) as running:
        yield running


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    opened = Page(tmp_path / "profile")
    yield opened
    opened.driver.quit()


def ready(page: Page) -> None:
    """Wait for the page, and for the model in the browser where it is loaded there."""
    page.wait(lambda: page.element("pad").is_displayed() and page.text("state").startswith("serving"))
    page.wait(lambda: "Loading" not in page.text("difference"))


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 900, "light"), (360, 740, "dark"), (320, 600, "light")])
def test_a_digit_is_drawn_and_recognised(page: Page, server: Running, width: int, height: int, scheme: str) -> None:
    page.open(server.url, width, height, scheme)
    ready(page)
    for digit, strokes in (("7", SEVEN), ("0", ZERO)):
        page.element("clear").click()
        page.wait(lambda: not page.shares())
        page.draw(strokes)
        page.shows(digit)
        shares = page.settled()
        assert max(shares, key=lambda name: shares[name]) == digit
        assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    if WEB_RUNTIME.is_dir():
        largest = page.element("difference").get_attribute("data-largest")
        assert 0 <= float(largest) < 1e-4
    page.element("show-neurons").click()
    page.wait(lambda: page.run("return document.querySelectorAll('#neuron-layers canvas[aria-label]').length") >= 2)
    assert "neurons, mean |h|" in page.run("return document.querySelector('#neuron-layers canvas').ariaLabel")
    painted = (
        "return [...document.querySelectorAll('#neuron-layers canvas')].every(canvas => canvas.width > 0 &&"
        " canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0))"
    )
    page.wait(lambda: page.run(painted))
    page.run("for (const each of document.querySelectorAll('details')) each.open = true")
    across = page.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert across[0] <= across[1] == width
    assert page.errors() == []
    asked = page.requests()
    assert len(asked) > 10
    assert {url for url in asked if not url.startswith(f"{server.url}/")} == set()


def test_strokes_become_pictures_as_the_data_has_them(page: Page, server: Running) -> None:
    page.open(server.url)

    def render(strokes: list[list[tuple[float, float]]], size: int, centred: bool = True) -> NDArray[np.float64]:
        code = "const [done, ...given] = [arguments[4], ...arguments].slice(0, 5);"
        code += "import('./page/picture.js').then(({ render }) => done([...render(...given)]))"
        values = page.driver.execute_async_script(code, strokes, size, size, centred)
        return np.array(values).reshape(size, size)

    small = [(0.1 + x / 4, 0.6 + y / 4) for x, y in ZERO]
    for strokes in (
        [ZERO],
        [small],
        [SEVEN],
        [[(0.2, 0.2)] * 2],
        [[(0.9, 0.1), (0.9, 0.8)]],
        [[(0.1, 0.9), (0.9, 0.9)]],
    ):
        mnist = render(strokes, 28)
        rows, columns = np.indices(mnist.shape) + 0.5
        assert [np.average(each, weights=mnist) for each in (rows, columns)] == pytest.approx([14, 14], abs=0.05)
        for axis in (0, 1):
            assert np.count_nonzero(mnist.max(axis) > 0.5) <= 20
        assert 0 <= mnist.min() < mnist.max() <= 1
    line = render([[(0.5, 0.2), (0.5, 0.7)]], 28)
    assert line[14].sum() == pytest.approx(2.4, abs=0.05)  # the pen's width
    np.testing.assert_allclose(render([small], 28), render([ZERO], 28), atol=0.05)  # whatever size it is drawn in
    digits = render([ZERO], 8)
    assert (digits.max(1) > 0.3).all()  # the whole height
    assert digits[:, [0, 7]].max() < 0.2
    corner = render([[(0.02, 0.02), (0.08, 0.08)]], 28, centred=False)
    assert corner[:4, :4].sum() > 0.9 * corner.sum() > 0
    assert not render([], 28).any()
    assert page.errors() == []


def test_a_digit_is_drawn_with_keys_alone(page: Page, server: Running) -> None:
    from selenium.webdriver import Keys

    page.open(server.url)
    ready(page)
    for _ in range(20):
        page.press(Keys.TAB)
        if page.run("return document.activeElement.id") == "pad":
            break
    assert page.run("return document.activeElement.matches('#pad:focus-visible')")
    with_shift = (Keys.SHIFT, *[Keys.ARROW_UP] * 2, Keys.ARROW_LEFT, Keys.NULL)
    page.press(*with_shift, Keys.SPACE, *[Keys.ARROW_RIGHT] * 10)
    page.press(*[key for _ in range(9) for key in (Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_LEFT)], Keys.SPACE)
    page.shows("7")
    assert page.element("pen").get_property("textContent") == "Pen up"
    page.press(*[Keys.ARROW_UP] * 5)  # the pen is lifted
    before = page.settled()
    assert page.settled() == before
    page.press(Keys.DELETE)
    page.wait(lambda: not page.shares())
    assert page.errors() == []


def test_what_is_deleted_while_it_is_drawn_and_a_second_finger(page: Page, server: Running) -> None:
    from selenium.webdriver import ActionChains, Keys

    page.open(f"{server.url}/#%")  # no text in the way of addresses
    ready(page)
    pad = page.element("pad")
    drawn = "return document.getElementById('pad').toDataURL()"

    def move(x: int, y: int) -> ActionChains:
        return ActionChains(page.driver, duration=5).move_to_element_with_offset(pad, x, y)

    move(-50, -50).click_and_hold().perform()
    move(50, -50).perform()
    page.wait(page.shares)
    page.press(Keys.DELETE)
    page.wait(lambda: not page.shares())
    empty = page.run(drawn)
    move(50, 50).perform()
    assert page.run(drawn) == empty
    move(0, 0).release().perform()
    move(-50, -50).click_and_hold().perform()
    for kind in ("pointerup", "pointercancel"):
        page.run(f"document.getElementById('pad').dispatchEvent(new PointerEvent('{kind}', {{ pointerId: 99 }}))")
    before = page.run(drawn)
    move(50, -50).perform()
    assert page.run(drawn) != before
    move(50, 50).release().perform()
    ended = page.run(drawn)
    move(-50, 50).perform()
    assert page.run(drawn) == ended
    assert page.errors() == []


def test_the_page_asks_for_the_key(page: Page, model: Path) -> None:
    with serving(model, grpc=False, env=dict(os.environ, SMX_API_KEY=KEY)) as server:
        page.open(server.url)
        page.wait(lambda: page.element("key").is_displayed())
        assert not page.element("main").is_displayed()
        page.element("key").send_keys("not-the-key\n")
        page.wait(lambda: "needs a key" in page.text("state"))
        page.element("key").clear()
        page.element("key").send_keys(f"{KEY}\n")
        ready(page)
        page.draw(ZERO)
        page.shows("0")
        page.driver.refresh()
        ready(page)  # without being asked again
        assert not page.element("key").is_displayed()
        assert all("401" in error for error in page.errors())


def test_a_model_is_chosen_among_several(page: Page, model: Path, tmp_path: Path) -> None:
    from onnx import parser, save
    from selenium.webdriver.support.ui import Select

    shutil.copy(model, tmp_path / "digits.onnx")
    text = '<ir_version: 9, opset_import: ["" : 18]> m (float[n,3] x) => (float[n,3] y) { y = Relu(x) }'
    save(parser.parse_model(text), tmp_path / "<b>other & none.onnx")
    with serving(tmp_path, "--poll", "0.1", grpc=False) as server:
        page.open(server.url)
        page.wait(lambda: page.element("models").is_displayed())
        Select(page.element("models")).select_by_visible_text("digits")
        ready(page)
        page.draw(ZERO)
        page.shows("0")
        Select(page.element("models")).select_by_visible_text("<b>other & none")
        page.wait(lambda: "<b>other & none, version 1" in page.text("facts"))
        assert not page.element("drawing").is_displayed()
        assert not page.element("neurons").is_displayed()
        page.driver.refresh()
        page.wait(lambda: "<b>other & none, version 1" in page.text("facts"))
        assert page.errors() == []


def test_a_replaced_file_is_shown_anew_and_the_drawing_stays(page: Page, model: Path, tmp_path: Path) -> None:
    from onnx import helper, save

    path, fresh = tmp_path / "digits.onnx", tmp_path / "fresh"
    shutil.copy(model, path)
    changed = loaded(model)
    helper.set_model_props(
        changed, {entry.key: entry.value for entry in changed.metadata_props} | {"smx.class_names": json.dumps(WORDS)}
    )
    save(changed, fresh)
    with serving(path, "--poll", "0.1", grpc=False) as server:
        page.open(server.url)
        ready(page)
        page.draw(ZERO)
        page.shows("0")
        fresh.replace(path)
        page.shows("zero")
        assert list(page.settled()) == WORDS
        assert page.errors() == []
