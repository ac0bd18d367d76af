"""Run the Python blocks of pages, one after the other, as a reader would: `python docs/run.py docs/tour.md`.

A block is fenced by ```` ```python ````. A ```` ```text ```` block that follows one directly is what it prints, with
`...` standing for anything. The tests use `blocks` and `run`.
"""
import doctest
import io
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\s*^```text\n(.*?)^```\n)?", re.M | re.S)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A block's heading, its line in the page, its code, and what it is to print (None: not said)."""

    heading: str
    line: int
    code: str
    printed: str | None


def blocks(text):
    """The blocks of a page.

    >>> blocks("# One\\n```python\\nprint(1)\\n```\\n\\n```text\\n1\\n```\\n")[0][1:]
    (3, 'print(1)\\n', '1\\n')
    """
    found = []
    for match in BLOCK.finditer(text):
        heading = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text[:match.start()], flags=re.M | re.S), re.M)
        line = text[:match.start(1)].count("\n") + 1
        found.append(Block(heading[-1] if heading else "", line, *match.groups()))
    return found


def run(block, page, names):
    """Run a block with the page's names so far; returns what it printed. AssertionError if the page says otherwise."""
    out = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.code, page, "exec")
    with redirect_stdout(out):
        exec(code, names)
    printed = out.getvalue()
    if block.printed is not None and not doctest.OutputChecker().check_output(block.printed, printed, FLAGS):
        raise AssertionError(f"{page}, line {block.line}: the page says that this prints\n{block.printed}\n"
                             f"but it prints\n{printed}")
    return printed


def main(paths):
    for path in map(Path, paths):
        names = {"__name__": "__main__"}
        for block in blocks(path.read_text()):
            print(f"\n=== {block.heading}\n\n{block.code.rstrip()}\n")
            print("\n".join(f"    {line}" for line in run(block, str(path), names).splitlines()))


if __name__ == "__main__":
    main(sys.argv[1:])
