"""A real Chromium, headless, that may not reach any network."""

import shutil
from collections.abc import Iterator

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """The browser; skips where the machine has none."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Open a file in a context of its own; what went wrong in it fails the test."""
    contexts, problems = [], []

    def open_it(path, **settings):
        context = chromium.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
        page.on("requestfailed", lambda request: problems.append(f"failed {request.url}"))
        page.on("request", lambda request: problems.extend(_outside(request.url)))
        page.goto(f"file://{path}")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert problems == []


def _outside(url):
    return [] if url.startswith(("file:", "blob:")) else [f"asked for {url}"]
