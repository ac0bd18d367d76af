"""Sphinx's settings for the site. `make docs` builds it: the source is the whole repository, so that links from page to
notebook to file are the same here as in a checkout. A new `docs/*.md` is on the site by itself (see `index.md`)."""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import docstrings  # noqa: E402
import search  # noqa: E402

import minifast  # noqa: E402

project, author, copyright = "minifast", "the authors of minifast", "the authors of minifast"
version = release = minifast.__version__
root_doc = "docs/index"
exclude_patterns = [".*", "out", "build", "dist"]
include_patterns = ["docs/*.md", "docs/reference/*.md", "nbs/*.ipynb", "CONTRIBUTING.md", "CHANGELOG.md",
                    "tests/bench/RESULTS.md"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton"]

html_theme = "furo"
html_title = "minifast"
html_static_path = ["static"]
html_css_files = ["minifast.css"]
html_js_files = ["access.js"]
html_show_search_summary = False    # would fetch each result; searchsections.js holds how each begins
html_additional_pages = {"index": "forward.html"}   # the home page is docs/index.html
templates_path = ["templates"]
html_copy_source = html_show_sourcelink = False
html_search_language = "en"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

nb_execution_mode = "off"       # the notebooks hold their outputs, and the tests run them
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nitpicky = False                # types in signatures are words here, not links to other sites
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_maximum_signature_line_length = 90
maximum_signature_line_length = 90


def modules_of_pages(app, docname, source):
    """`<!-- modules: a, callbacks.* -->` in a page of the reference becomes their documentation; `rest` is all others.
    A module that no page names is documented by the page of the rest, so nothing is left out."""
    def documented(found):
        lines = []
        for name in docstrings.chosen(found[1]):
            full = f"minifast.{name}"
            members = ["   :no-members:"] if name in docstrings.STARS else []
            source = f'<a href="../../source/{docstrings.path_of(name)}.html">Source</a>'
            lines += [f"## {full}", "", source, "", "```{eval-rst}", f".. automodule:: {full}", *members, "```", ""]
        return "\n".join(lines)

    source[0] = re.sub(r"^<!-- modules: (.*) -->$", documented, source[0], flags=re.M)
    source[0] = docstrings.links_on_site(source[0], docname)
    if docname == "docs/examples":
        source[0] = source[0].replace("<!-- examples -->", docstrings.examples())
    if docname == "docs/index":     # pages that no list of the home page names
        source[0] = source[0].replace("<!-- more pages -->", docstrings.more_pages(source[0]))


def source_pages(app):
    """A page with each module's source in colours."""
    for name in docstrings.module_names():
        path = ROOT / docstrings.path_of(name).with_suffix(".py")
        code = app.builder.highlighter.highlight_block(path.read_text(), "python")
        title = str(path.relative_to(ROOT))
        yield f"source/{title.removesuffix('.py')}", {"title": title, "body": f"<h1>{title}</h1>{code}"}, "page.html"


def setup(app):
    app.connect("html-collect-pages", source_pages)
    app.connect("source-read", modules_of_pages)
    app.connect("autodoc-process-docstring", docstrings.as_rst)
    search.setup(app)
