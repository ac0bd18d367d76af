"""The site: it is built without a warning, its links hold, its search answers questions, and it asks no other host."""
import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from filelock import FileLock  # torch depends on it
from questions import MORE_QUESTIONS, QUESTIONS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="the extra docs is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built once for all of xdist's workers: it takes most of a minute."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    with FileLock(f"{out}.lock"):
        if not (out / "built").exists():
            build(out)
            (out / "built").touch()
    return out / "html"


def build(out):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", "docs",
               "-d", str(out / "doctrees"), ".", str(out / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def find(site):
    """The page's own search: a function of what is typed that returns (page, title, anchor), the best first."""
    from py_mini_racer import MiniRacer

    engine = MiniRacer()
    static = site / "_static"
    engine.eval("var window = this;" + "\n".join(
        (static / name).read_text().replace('"use strict";', "")
        for name in ("language_data.js", "search.js", "searchsections.js")).replace("const Sections", "var Sections"))
    return lambda query: [(found[0], found[1], found[2].lstrip("#"))
                          for found in engine.call("Sections.find", query)]


class Addresses(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.ids, self.no_text = [], [], set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.add(attrs["id"])
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
        elif tag in ("link", "script", "img", "source", "iframe"):
            self.loaded += [attrs[name] for name in ("href", "src") if name in attrs]
        if tag == "img" and not attrs.get("alt"):
            self.no_text.append(attrs.get("src"))


@pytest.fixture(scope="module")
def pages(site):
    return {path: Addresses(path) for path in sorted(site.rglob("*.html"))}


def test_nothing_is_loaded_from_another_host(pages):
    loaded = {(path.name, address) for path, page in pages.items() for address in page.loaded}
    assert len(pages) > 30 and [(p, a) for p, a in loaded if urlsplit(a).scheme not in ("", "data")] == []


def test_every_link_inside_leads_somewhere(site, pages):
    broken = []
    for path, page in pages.items():
        for link in {*page.links, *page.loaded}:
            parts = urlsplit(link)
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                broken.append((path.name, link))
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                broken.append((path.name, link))
    assert broken == []


def test_pictures_have_alternative_texts(site, pages):
    without = {path.name: page.no_text for path, page in pages.items() if page.no_text}
    assert {name: found for name, found in without.items() if not name[:2].isdigit()} == {}


def test_every_page_and_notebook_is_on_the_site(site):
    expected = {f"docs/{p.stem}.html" for p in (ROOT / "docs").glob("*.md")}
    expected |= {f"nbs/{p.stem}.html" for p in (ROOT / "nbs").glob("*.ipynb")}
    index = Addresses(site / "docs" / "index.html").links
    paths = {unquote(link.split("#")[0]) for link in index}
    linked = {path.removeprefix("../") if path.startswith("../") else f"docs/{path}" for path in paths}
    assert expected - {"docs/index.html"} <= linked


def test_every_public_name_is_in_the_reference(site):
    import importlib

    from test_layout import MODULES, STAR_MODULES
    text = "\n".join(path.read_text() for path in (site / "docs" / "reference").glob("*.html"))
    ids = set(re.findall(r'id="(minifast\.[\w.]+)"', text))
    missing = []
    for name in MODULES:
        if name in STAR_MODULES or name == "__main__" or name.startswith("bundled") or name.endswith("__init__"):
            continue
        module = importlib.import_module(f"minifast.{name}")
        missing += [f"{name}.{n}" for n in module.__all__ if callable(getattr(module, n))
                    and getattr(getattr(module, n), "__module__", "") == module.__name__
                    and f"minifast.{name}.{getattr(module, n).__name__}" not in ids
                    and f"minifast.{name}.{n}" not in ids]
    assert len(ids) > 300 and missing == []


def unanswered(find, questions):
    """The questions whose answer is not among the first three results, with these."""
    found = []
    for question, answers, _ in questions:
        right = {a if a.startswith("nbs/") else f"docs/{a}" for a in answers.split()}
        first = find(question)[:3]
        if not any(page in right or f"{page}#{anchor}" in right for page, _, anchor in first):
            found.append((question, first))
    return found


def test_the_search_answers_the_questions(find):
    assert len({question for question, *_ in QUESTIONS}) == 30
    assert len(missed := unanswered(find, QUESTIONS)) <= 3, missed
    assert len(missed := unanswered(find, MORE_QUESTIONS)) <= 2, missed


def test_every_answer_exists(site):
    for _, answers, _ in (*QUESTIONS, *MORE_QUESTIONS):
        for answer in answers.split():
            page, _, anchor = answer.partition("#")
            html = site / (page if page.startswith("nbs/") else f"docs/{page}")
            if page != "distributed":
                assert not anchor or anchor in Addresses(html.with_suffix(".html")).ids, answer


@pytest.mark.parametrize("typed, page, anchor", [
    ("fit_one_cycle", "docs/reference/training", "minifast.learner.Learner.fit_one_cycle"),
    ("GradientClipping", "docs/reference/callbacks", "minifast.callbacks.gradients.GradientClipping"),
    ("untar_data", "docs/reference/data", "minifast.datasets.untar_data"),
])
def test_a_name_is_found(find, typed, page, anchor):
    assert (page, anchor) in [(p, a) for p, _, a in find(typed)[:3]]


def test_the_beginning_of_a_word_is_enough(find):
    assert find("accum") and find("accum")[0][0] in {page for page, *_ in find("accumulation")}


@pytest.mark.parametrize("typed", ["", "   ", "how do I", "xyzzyq", "\"'<>&", "constructor", "__proto__"])
def test_what_says_nothing_finds_nothing(find, typed):
    assert find(typed) == []
