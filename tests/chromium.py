"""A real browser without a window, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
         "disable-component-update", "disable-sync")  # fmt: skip


def running(folder: Path) -> Iterator[Any]:
    """Its driver, for a fixture; what the browser keeps goes into `folder`. Skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not CHROMIUM or not DRIVER:
        pytest.skip("Chromium is not installed: Debian's chromium and chromium-driver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={folder}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def set_width(browser: Any, width: int) -> None:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def reached(browser: Any, css: str) -> Any:
    """The element, scrolled to where it can be clicked: the driver does not scroll a list inside a list."""
    found = browser.find_element("css selector", css)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
    return found


def covered(browser: Any) -> dict[int, list[str]]:
    """By the window's width, the controls that lie under something else once they are scrolled into view."""
    found: dict[int, list[str]] = {}
    for width in (360, 800, 1400):
        set_width(browser, width)
        found[width] = browser.execute_script(COVERED)
    return found


COVERED = """
return [...document.querySelectorAll("input, button, textarea")].filter(each => each.checkVisibility()).filter(each => {
    each.scrollIntoView({block: "nearest"});
    const box = each.getBoundingClientRect();
    const seen = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    return box.width > 1 && !(each.contains(seen) || seen?.contains(each));
}).map(each => each.outerHTML);
"""
