"""A headless Chromium for tests of pages: what it complained of, what it asked for, how a page looks."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1",
              "--disable-background-networking", "--disable-component-update")


@contextlib.contextmanager
def chromium(profile: Path, language: str = "en-GB") -> Iterator[Any]:
    """A driver; skips where there is no Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no Chromium with its driver here to look at the pages")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (*_ARGUMENTS, f"--user-data-dir={profile}", f"--lang={language}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        chrome.set_script_timeout(15)
        yield chrome


def size(chrome: Any, width: int, height: int = 900, dark: bool = False) -> None:
    """The window as a phone or a desk has it."""
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})


def until(true: Callable[[], Any], seconds: float = 10) -> Any:
    """Waits for a value that is true."""
    import time

    end = time.monotonic() + seconds
    while True:
        if value := true():
            return value
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.02)


def asked(chrome: Any) -> list[str]:
    """Addresses that the page asked for since the last call."""
    found = []
    for line in chrome.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return found


def complaints(chrome: Any) -> list[str]:
    """What the browser calls severe, without the connections that a test has cut on purpose."""
    return [line["message"] for line in chrome.get_log("browser") if line["level"] == "SEVERE"]


def names(chrome: Any, selector_role: str) -> list[str]:
    """The names of the elements with a role, as a screen reader hears them."""
    tree = chrome.execute_cdp_cmd("Accessibility.getFullAXTree", {})
    return [node.get("name", {}).get("value", "") for node in tree["nodes"]
            if not node.get("ignored") and node.get("role", {}).get("value") == selector_role]
