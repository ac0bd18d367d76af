"""The docstrings, which are plain text with backticks, as Sphinx reads them; and which module is on which page."""
import inspect
import re
from fnmatch import fnmatch
from pathlib import Path

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "minifast"
LEFT_OUT = ("__main__", "bundled.*", "", "basics")      # programs, and modules that only give other modules' names
STARS = [p.parent.name for p in PACKAGE.glob("*/__init__.py")]     # packages that give their modules' names
# `name: ` or `name, name: `, with what reStructuredText needs around them
ARGUMENT = re.compile(r"([\\*]*[\w.\\]+(?:, [\\*]*[\w\\]+)*): (.+)")


def module_names():
    """All modules with something to document, by name."""
    names = [".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")
             for p in sorted(PACKAGE.rglob("*.py"))]
    return [n for n in names if not any(fnmatch(n, pattern) for pattern in LEFT_OUT)]


def path_of(name):
    """Where a module's file is in the repository, without its suffix."""
    path = Path("minifast", *name.split("."))
    return path / "__init__" if (PACKAGE.parent / path).is_dir() else path


def on_pages():
    """The patterns of each page of the reference."""
    found = {page.stem: re.findall(r"^<!-- modules: (.*) -->$", page.read_text(), re.M)
             for page in sorted((DOCS / "reference").glob("*.md"))}
    return {page: [p for line in lines for p in line.split(", ")] for page, lines in found.items()}


def chosen(line):
    """The modules that a page's line stands for, in its order."""
    patterns = line.split(", ")
    if patterns == ["rest"]:
        named = [p for found in on_pages().values() for p in found]
        return [n for n in module_names() if not any(fnmatch(n, p) for p in named)]
    return list(dict.fromkeys(n for p in patterns for n in module_names() if fnmatch(n, p)))


def more_pages(index):
    """Links to the pages in docs/ that the home page's lists do not name."""
    pages = [p.stem for p in sorted(DOCS.glob("*.md")) if p.stem not in ("index",) and p.stem.islower()]
    return "\n".join(p for p in pages if not re.search(rf"^(?:.*<)?{re.escape(p)}>?$", index, re.M))


def links_on_site(text, docname):
    """Links to files of the repository, as the site has them: scripts on the page of examples, modules as source.

    >>> links_on_site("[a](../examples/gan.py) [b](../minifast/state.py) [c](../examples)", "docs/jobs")
    '[a](examples.md#ganpy) <a href="../source/minifast/state.html">b</a> [c](examples.md)'
    """
    up = "../" * docname.count("/")
    text = re.sub(r"\]\(\.\./examples/?\)", "](examples.md)", text)
    text = re.sub(r"\]\(\.\./examples/([\w.]+)\)", lambda m: f"](examples.md#{m[1].replace('.', '').lower()})", text)
    here = (DOCS.parent / docname).parent       # a folder is no page: what links to one is text
    text = re.sub(r"\[([^\]]+)\]\(([\w./]+)\)", lambda m: m[1] if (here / m[2]).is_dir() else m[0], text)
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)*minifast/([\w/]+)\.py\)",
                  lambda m: f'<a href="{up}source/minifast/{m[2]}.html">{m[1]}</a>', text)


def examples():
    """A section for each script in examples/, included from its file."""
    kinds = {".py": "python", ".sh": "bash"}
    found = [p for p in sorted((DOCS.parent / "examples").rglob("*")) if p.suffix in kinds]
    return "\n".join(f"## {p.name}\n\n```{{literalinclude}} ../examples/{p.relative_to(DOCS.parent / 'examples')}\n"
                     f":language: {kinds[p.suffix]}\n```\n" for p in found)


def as_rst(app, what, name, obj, options, lines):
    """Rewrite a docstring in place."""
    try:
        arguments = set(inspect.signature(obj).parameters) if callable(obj) else set()
    except (TypeError, ValueError):
        arguments = set()
    lines[:] = rewritten(lines, arguments)


def rewritten(lines, arguments=()):
    """The lines as reStructuredText: lists of arguments and items, tables, examples, paragraphs.

    >>> rewritten(["What it does to `x`.", "x: a number,", "    or two.", "", ">>> f(1)", "1"], {"x"})
    ['What it does to ``x``.', '', '* ``x``: a number,', '  or two.', '', '>>> f(1)', '1', '']
    """
    out = []
    for block in blocks(lines):
        if block[0].startswith(">>> "):
            out += block
        elif len(block) > 1 and re.fullmatch(r"[|\-: ]+", block[1]):
            rows = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in block]
            out += [".. list-table::", "   :header-rows: 1", ""]
            for row in [rows[0], *rows[2:]]:
                out += [f"   {'* -' if j == 0 else '  -'} {inline(cell)}" for j, cell in enumerate(row)]
        else:
            out += items(inline("\n".join(block)).split("\n"), arguments)
        out.append("")
    return out


def blocks(lines):
    """The lines between blank ones; an example is a block of its own."""
    block = []
    for line in lines:
        starts = line.startswith(">>> ") and block and not block[0].startswith(">>> ")
        if block and (not line.strip() or starts):
            yield block
            block = []
        block += [line] if line.strip() else []
    if block:
        yield block


def items(lines, arguments):
    """The lines of a paragraph, in which what begins with a dash or with an argument's name is an item of a list."""
    out, within = [], False
    all_arguments = all(ARGUMENT.match(line) for line in lines if not line.startswith(" "))
    for line in lines:
        item = re.match(r"(?:[-*]|\d+\.) +(.*)", line)
        argument = ARGUMENT.match(line)
        names = argument[1].replace("\\", "").split(", ") if argument else []
        if argument and (all_arguments or all(n.strip("*") in arguments for n in names)):
            head = ", ".join(f"``{n}``" for n in names)
            out += ["" if out and not within else None, f"* {head}: {argument[2]}"]
            within = True
        elif item:
            out += ["" if out and not within else None, f"* {item[1]}"]
            within = True
        elif within and line.startswith(" "):
            out.append(f"  {line.strip()}")
        else:
            out += ["" if within else None, line.strip()]
            within = False
    return [line for line in out if line is not None]


def inline(text):
    """Backticks as code; what else means something to reStructuredText, as it stands.

    >>> inline("`x` of *args and x_")
    '``x`` of \\\\*args and x\\\\_'
    """
    pieces = re.split(r"(`+[^`]+`+)", text)
    out = [f"``{p.strip('`')}``" if p.startswith("`") else re.sub(r"([*|_])", r"\\\1", p) for p in pieces]
    for i in range(1, len(out), 2):     # the odd ones are code; a letter right after its end needs a mark
        out[i] += "\\ " if re.match(r"\w", out[i + 1]) else ""
    return "".join(out)
