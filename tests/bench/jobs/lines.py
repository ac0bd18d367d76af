"""How many lines of code a job takes: `python tests/bench/jobs/lines.py` prints the table of docs/jobs.md.

Counted are lines that hold code: no blank ones, comments, docstrings, imports, and not what is the same for all, the
job's data and its model. What Lightning's jobs share is counted for each, because each would have to have it.
"""
import ast
import io
import tokenize
from pathlib import Path

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[2] / "examples"
# in the examples, what makes the data and the model
THE_SAME = {"multi_label": ["SHAPES", "pictures"], "segmentation": ["pictures", "unet"],
            "tabular_classification": ["customers"], "k_fold": [], "weighted_sampling": ["points"], "gan": ["GAN"]}
SHARED = {name: ["Task", "fit"] for name in THE_SAME} | {"gan": ["fit"]}


def code_lines(text):
    """The numbers of the lines that hold code."""
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    found = {line for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in skipped
             for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, (ast.Import, ast.ImportFrom)):
            found -= set(range(node.lineno, node.end_lineno + 1))
    return found


def names_of(node):
    targets = getattr(node, "targets", [])
    return {*([node.name] if hasattr(node, "name") else []), *(t.id for t in targets if isinstance(t, ast.Name))}


def count(text, names):
    """Code lines of the top-level statements that define these names."""
    lines = code_lines(text)
    return sum(len(lines & set(range(node.lineno, node.end_lineno + 1))) for node in ast.parse(text).body
               if names_of(node) & names)


def of_section(text, job=None):
    """The names that are defined between the comment `# ---- job` and the next one, or in the whole file."""
    rest = text if job is None else text.partition(f"# ---- {job}\n")[2].partition("\n# ----")[0]
    return {name for node in ast.parse(rest).body for name in names_of(node)}


def table():
    fastai, lightning = ((HERE / f"{name}_2.py").read_text() for name in ("fastai", "lightning"))
    for job, the_same in THE_SAME.items():
        example = (EXAMPLES / f"{job}.py").read_text()
        theirs = [count(text, of_section(text, job) | more) for text, more in (
            (fastai, set()), (lightning, set(SHARED[job])))]
        yield job, count(example, of_section(example) - set(the_same)), *theirs


if __name__ == "__main__":
    print("| job | minifast | fastai 2 | Lightning |\n|---|---|---|---|")
    for job, *numbers in table():
        print(f"| {job} | {' | '.join(map(str, numbers))} |")
