"""A real Chromium without a window, for pages that are to be opened, not only parsed."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PATIENCE = 60.0  # seconds: far more than anything takes; a test that waits so long has failed
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--window-size=1400,1000"),
)


class Browser:
    """Selenium's driver, and what tests ask of it again and again."""

    def __init__(self, driver: Any):
        self.driver = driver
        self._said: list[str] = []

    def open(self, url: str) -> None:
        self.driver.get_log("browser")
        self._said = []
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def media(self, **features: str) -> None:
        """Emulate ``prefers-color-scheme`` and the like, or another ``media``."""
        told = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": told})

    def width(self, pixels: int) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": pixels, "height": 1000, "deviceScaleFactor": 1, "mobile": False},
        )

    def point_at(self, element: Any) -> None:
        from selenium.webdriver import ActionChains

        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self.driver).move_to_element(element).perform()

    def press(self, key: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(key).perform()

    def complaints(self) -> list[str]:
        """Of the console, since the page was opened: errors, warnings, refused contents."""
        found = self.driver.get_log("browser")  # Chromium forgets what was asked for
        # Swiftshader's remark that reading pixels is slow is about the test itself.
        self._said += [json.dumps(e) for e in found if "GPU stall" not in e["message"]]
        return list(self._said)

    def wait(self, condition: Callable[[], Any]) -> Any:
        until = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < until, f"it never came: {self.complaints()}"
            time.sleep(0.05)
        return value


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own, gone afterwards; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if not CHROMIUM or not DRIVER:
        pytest.skip("no Chromium: Debian has it as chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.chrome.service.Service(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
