"""The search of the site: sections, not pages, ranked by BM25 with the titles counting more.

Sphinx's own search finds pages that hold every word, and ranks them by whether a word stands in a title; a question
typed as such finds nothing. Here each section, class and function is an entry. All of the ranking's arithmetic is done
when the site is built: `searchsections.js` holds what each word adds to the score of each entry, and `static/search.js`
adds up. Words are stemmed by Sphinx's stemmer, in both places, and results are shown by its page.

BM25: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3.1, with fields
weighted as in its section 3.2.
"""
import json
import math
import re
from collections import Counter
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.search.en import SearchEnglish

K1, B = 1.2, 0.6
TITLE, PAGE_TITLE = 5, 2        # how often a word of the section's title, of the page's title, counts
OF_REFERENCE = 0.6             # an answer that explains comes before one that lists
BEGINNING = 110                 # letters of an entry that a result shows
LEFT_OUT = ("genindex", "py-modindex", "search", "CHANGELOG")

# words that only make a question
STOPWORDS = frozenset("""
a about after all also am an and any anyone are as at be been being but by can cannot could did do does doing don done
each ever every for from get gets getting give go goes going good got had has have having help here how i if in
instead into is it its just keep kind know let like me might more much must my need needs no of on only or other our
out over own please possible proper properly should so some someone something still such t than that the their them
then there these they thing this those through to too try trying up us use used uses using very want wants was way we
were what when where whether which while who why will with without won work working works would you your
""".split())


class Questions(SearchEnglish):
    """English, typed as a question."""

    stopwords = STOPWORDS


def words(text):
    """The stems of a text's words, in order; a name counts also as its parts.

    >>> words("Saving with learn.save_model"), words("LRFinder")
    (['save', 'learn', 'save_model', 'save', 'model'], ['lrfinder', 'lr', 'finder'])
    """
    language, found = Questions({}), []
    for word in language.split(text):
        parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", word)
        for part in [word, *(parts if len(parts) > 1 else [])]:
            if part.lower() not in STOPWORDS and not part.isdigit():
                found.append(language.stem(part))
    return found


def entries(docname, doctree):
    """(anchor, title, kind, text) of each section, class and function of a page."""
    def own(node, top=True):
        if not top and isinstance(node, (nodes.section, addnodes.desc)):
            return []
        if isinstance(node, nodes.Text):
            return [node.astext()]
        if isinstance(node, (nodes.title, addnodes.desc_signature, nodes.raw, nodes.comment, nodes.image)):
            return []
        return [text for child in node.children for text in own(child, top=False)]

    for node in doctree.findall(lambda n: isinstance(n, (nodes.section, addnodes.desc))):
        if isinstance(node, nodes.section):
            title = node.next_node(nodes.title).astext()
            anchor = "" if node.parent is doctree else node["ids"][0]
            text = " ".join(own(node))
            if text.strip() or not anchor:      # a heading over other headings answers nothing
                yield anchor, title, "title", text
        elif signature := next((s for s in node.findall(addnodes.desc_signature) if s["ids"]), None):
            yield signature["ids"][0], signature["fullname"], "object", " ".join(own(node))


def ranked(pages):
    """The index of {docname: (page title, [entry, ...])}: docs, and for each word the entries that it speaks for."""
    docs, counts = [], []
    for name, (page_title, found) in pages.items():
        for anchor, title, kind, text in found:
            weight = OF_REFERENCE if kind == "object" or "/reference/" in name else 1
            tf = Counter(words(text))
            for word in words(title):
                tf[word] += TITLE
            for word in words(page_title) if title != page_title else ():
                tf[word] += PAGE_TITLE
            begins = " ".join(text.split())[:BEGINNING].rsplit(" ", 1)[0]
            docs.append([name, title if title == page_title else f"{page_title} > {title}", anchor, kind, begins])
            counts.append((weight, tf, sum(tf.values())))
    mean = sum(length for *_, length in counts) / len(counts)
    within = Counter(word for _, tf, _ in counts for word in tf)
    terms = {}
    for i, (weight, tf, length) in enumerate(counts):
        for word, n in tf.items():
            idf = math.log(1 + (len(docs) - within[word] + 0.5) / (within[word] + 0.5))
            score = idf * n * (K1 + 1) / (n + K1 * (1 - B + B * length / mean))
            terms.setdefault(word, []).extend((i, max(1, round(100 * weight * score))))
    return {"docs": docs, "terms": terms}


def collect(app, doctree):
    docname = app.env.docname
    if not docname.endswith(LEFT_OUT):
        title = doctree.next_node(nodes.title)
        app.env.sections_of[docname] = (title.astext() if title else docname, list(entries(docname, doctree)))


def begin(app, env, docnames):
    env.sections_of = {} if not hasattr(env, "sections_of") else env.sections_of


def purge(app, env, docname):
    getattr(env, "sections_of", {}).pop(docname, None)


def write(app, exception):
    if exception is None and app.builder.format == "html":
        index = ranked(dict(sorted(app.env.sections_of.items())))
        text = json.dumps(index, separators=(",", ":"), ensure_ascii=False)
        (Path(app.outdir) / "_static" / "searchsections.js").write_text(f"Sections.set({text});\n")


def on_the_search_page(app, pagename, templatename, context, doctree):
    if pagename == "search":
        app.add_js_file("search.js", priority=900)
        app.add_js_file("searchsections.js", priority=910)


def setup(app):
    app.add_search_language(Questions)
    app.connect("env-before-read-docs", begin)
    app.connect("env-purge-doc", purge)
    app.connect("doctree-read", collect)
    app.connect("html-page-context", on_the_search_page)
    app.connect("build-finished", write)
    return {"parallel_read_safe": False}
