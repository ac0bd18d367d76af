"""The site in Debian's Chromium: `make docs-check`, or `python docs/check.py out/site`.

Every page opens without an error of the console and without a request to a host, is no wider than its window at 390 and
1,280 pixels, and passes axe-core in light and dark, colour contrast included. The search finds
terms, code can be copied.
"""
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser import browser, missing, opened

TERMS = {"fit_one_cycle": "fit_one_cycle", "lr_find": "lr_find", "early stopping": "Stop early",
         "checkpoint": "Checkpoint", "mixed precision": "Mixed precision", "gradient clipping": "Clip gradients",
         "freeze": "Freeze",
         "mixup": "mixup", "confusion matrix": "confusion matrix", "tensorboard": "TensorBoard", "nan": "NaN",
         "csv": "CSV", "seed": "seeds", "warm up": "warm_up", "cosine": "cosine", "untar_data": "untar_data",
         "masks": "Masks", "accumulation": "accumulation", "report": "page", "own loop": "loop"}
MAIN = ("docs/index.html", "docs/start.html", "docs/how_to.html", "docs/compared.html", "docs/reference/training.html",
        "nbs/01_one_cycle.html", "search.html")


def axe(page):
    """What axe-core finds on a page. Sphinx marks up long signatures by a list without terms: that rule is left out."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]},
               "rules": {"definition-list": {"enabled": False}}}
    found = Axe().run(page, options=options).response["violations"]
    return [f"axe: {v['id']} at {n['target'][0]}: {n['failureSummary'].splitlines()[-1].strip()}"
            for v in found for n in v["nodes"]]


def check_page(chromium, site, path, faults):
    name = str(path.relative_to(site))
    for width, scheme in ((1280, "light"), (390, "dark")):
        with opened(chromium, path, width, color_scheme=scheme) as (page, said):
            faults += [f"{name}: {text}" for text in said]
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                faults.append(f"{name}: {wide} pixels wide in a window of {width}")
            if name in MAIN or name.startswith("docs/"):
                faults += [f"{name} ({scheme}): {text}" for text in axe(page)]


def check_search(chromium, site, faults):
    for term, expected in TERMS.items():
        address = f"{(site / 'search.html').resolve().as_uri()}?q={term.replace(' ', '+')}"
        with opened(chromium, address) as (page, said):
            page.wait_for_selector("ul.search li")
            first = page.locator("ul.search li").all_inner_texts()[:5]
            faults += [f"search for {term!r}: {text}" for text in said]
            if not any(expected.lower() in text.lower() for text in first):
                faults.append(f"search for {term!r}: {expected!r} is not in {first}")


def check_copy(chromium, site, faults):
    with opened(chromium, site / "docs" / "index.html") as (page, _):
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator("div.highlight").first.hover()
        page.locator("button.copybtn").first.click()
        page.wait_for_timeout(200)
        copied = page.evaluate("navigator.clipboard.readText()")
        if not copied.startswith("from minifast.vision import *\n"):
            faults.append(f"what was copied begins with {copied[:40]!r}")


def main(site):
    if missing():
        sys.exit(missing())
    site, faults = Path(site), []
    pages = [p for p in sorted(site.rglob("*.html")) if p.name != "index.html" or p.parent != site]
    shots = site.parent / "screenshots"
    shutil.rmtree(shots, ignore_errors=True)
    with browser() as chromium:
        for path in pages:
            if not str(path.relative_to(site)).startswith("source/") or path.name == "state.html":
                check_page(chromium, site, path, faults)
        check_search(chromium, site, faults)
        check_copy(chromium, site, faults)
        for name in MAIN:
            with opened(chromium, site / name) as (page, _):
                page.screenshot(path=shots / f"{Path(name).stem}.png")
    print("\n".join(faults) or f"{len(pages)} pages, {len(TERMS)} terms: no fault. Screenshots: {shots}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
