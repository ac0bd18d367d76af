"""The pages in docs/: their blocks run, their links lead somewhere, and each is on the site."""
import doctest
import importlib
import re
import sys
import traceback
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from callback_set import CLASSES

import minifast
from minifast.datasets import URLs, untar_data

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS))

from run import blocks, run  # noqa: E402

PAGES = {path.stem: path for path in sorted(DOCS.glob("*.md"))}
WITH_BLOCKS = [name for name, path in PAGES.items() if "```python\n" in path.read_text()]


def test_there_are_pages():
    assert {"start", "tour", "how_to", "data", "callbacks", "schedules", "finder", "promises", "report"} <= set(PAGES)
    assert len(WITH_BLOCKS) >= 10


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_the_blocks_run_in_order(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    saved = untar_data(URLs.MNIST_SAMPLE) / "models"    # what a page writes there meets whoever runs it again
    before = sorted(saved.glob("*"))
    for block in blocks(PAGES[name].read_text()):
        run(block, f"docs/{name}.md", names)
        plt.close("all")
    assert sorted(saved.glob("*")) == before, "give the learner path='.', so that its files lie in the reader's folder"


@pytest.mark.parametrize("name", ["run", "docstrings", "search"])
def test_the_examples_of_the_site_s_programs(name):
    pytest.importorskip("sphinx")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_tour_has_ten_steps_that_run():
    steps = [block.heading for block in blocks(PAGES["tour"].read_text())]
    assert [int(step.split(".")[0]) for step in dict.fromkeys(steps)] == list(range(1, 11))


def test_every_callback_is_in_the_list():
    text = PAGES["all_callbacks"].read_text()
    assert len(CLASSES) > 30 and [c.__name__ for c in CLASSES if f"`{c.__name__}`" not in text] == []


def test_a_wrong_output_is_found():
    page = "# One\n```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n"
    with pytest.raises(AssertionError, match="x.md, line 3: the page says that this prints\n3\n\nbut it prints\n2"):
        run(blocks(page)[0], "x.md", {})


def test_an_error_names_its_line():
    with pytest.raises(ZeroDivisionError) as e:
        run(blocks("# One\n\n```python\nx = 1\nx / 0\n```\n")[0], "x.md", {})
    last = traceback.extract_tb(e.value.__traceback__)[-1]
    assert (last.filename, last.lineno) == ("x.md", 5)


@pytest.mark.parametrize("path", [*PAGES.values(), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"],
                         ids=lambda path: path.stem)
def test_the_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link or link.startswith("mailto:"):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{path.name} links to {link}, which does not exist"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{path.name} links to {link}, but {target} has no such heading"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_one_title_and_pictures_have_texts(name):
    text = re.sub(r"^```.*?^```", "", PAGES[name].read_text(), flags=re.M | re.S)
    assert text.startswith("# ") and len(re.findall(r"^# ", text, re.M)) == 1
    assert "![](" not in text


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"^##+ (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0].split()[0] == minifast.__version__
    assert set(headings[1:]) <= {"Added", "Changed", "Deprecated", "Removed", "Mended", "Security"}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
