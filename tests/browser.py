"""Debian's Chromium, where it and Playwright are installed: `with browser() as b`, or a reason to skip."""
import contextlib
import importlib.util
import shutil

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]


def missing():
    """Why there is no browser; None if there is one."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed: pip install 'minifast[browser]'"
    return None if shutil.which("chromium") else "Chromium is not installed: apt-get install chromium"


@contextlib.contextmanager
def browser():
    """A headless Chromium with a new profile; its pages are closed with it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


@contextlib.contextmanager
def opened(chromium, path, width=1280, **options):
    """(page, what its console and its requests said): a file in a tab of that width. `options`: Playwright's."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, **options)
    said = []
    page.on("console", lambda message: said.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:"))
            else said.append(f"request: {request.url}"))
    try:
        page.goto(path if "://" in str(path) else path.resolve().as_uri())
        page.wait_for_load_state()
        yield page, said
    finally:
        page.close()
