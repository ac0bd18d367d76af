"""How many lines of code a job takes: `python tests/bench/jobs/lines.py` prints the table of docs/jobs.md.

Counted are lines that hold code: no blank ones, comments, docstrings, imports, and not what is the same for all, the
job's data and its model. What a program imports from a module of its library's folder, such as Lightning's task, is
counted for each job, because each would have to have it; and so is what it takes from the example itself, unless that
is the same for all.
"""
import ast
import io
import tokenize
from pathlib import Path

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[2] / "examples"
# in the examples, what makes the data, the model and the loss, in torch and numpy alone
THE_SAME = {
    "compare_runs": [],
    "detection": ["Squares", "mean_iou", "model"],
    "distillation": ["soft_or_hard", "net"],
    "export_and_serve": ["server"],
    "forecasting": ["series", "windows", "DLinear"],
    "gan": ["GAN"],
    "housing": ["table"],
    "k_fold": [],
    "language_model": ["WORDS", "text", "CharRNN"],
    "mlflow_runs": [],
    "multi_label": ["SHAPES", "pictures"],
    "optuna_search": [],
    "resume": [],
    "segmentation": ["pictures", "unet"],
    "siamese": ["Siamese", "contrastive", "right", "pairs"],
    "simclr": ["two_views", "nt_xent", "body"],
    "stream": ["COLUMNS", "write", "rows_of"],
    "tabular_classification": ["customers"],
    "transfer_learning": ["net"],
    "transformer_text": ["NAMES", "VOCABULARY", "sentences", "tokens", "Dicts", "right"],
    "two_processes": [],
    "vae": ["VAE", "ELBO"],
    "vit": ["ViT", "layer_decay"],
    "weighted_sampling": ["points"],
    "with_torchmetrics": [],
}


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


def defined(path):
    """All names that a file's top level defines."""
    return {name for node in ast.parse(path.read_text()).body for name in names_of(node)}


def count(path, names):
    """Code lines of the top-level statements that define these names; what main returns is for tests, and no line."""
    text = path.read_text()
    lines, nodes = code_lines(text), [node for node in ast.parse(text).body if names_of(node) & names]
    returns = [node.body[-1] for node in nodes if "main" in names_of(node) and isinstance(node.body[-1], ast.Return)]
    lines -= {line for node in returns for line in range(node.lineno, node.end_lineno + 1)}
    return sum(len(lines & set(range(node.lineno, node.end_lineno + 1))) for node in nodes)


def own(job):
    """What minifast's example has beside what is the same for all."""
    path = EXAMPLES / f"{job}.py"
    return count(path, defined(path) - set(THE_SAME[job]))


def theirs(library, job):
    """The same for another library's program; None where there is none."""
    path = HERE / library / f"{job}.py"
    if not path.exists():
        return None
    found = count(path, defined(path))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if node.level:
                found += count(path.parent / f"{node.module}.py", names)
            elif node.module == job:
                found += count(EXAMPLES / f"{job}.py", names - set(THE_SAME[job]))
    return found


def table():
    for job in THE_SAME:
        yield job, own(job), theirs("fastai_2", job), theirs("lightning_2", job)


if __name__ == "__main__":
    print("| job | minifast | fastai 2 | Lightning |\n|---|---|---|---|")
    for job, *numbers in table():
        print(f"| {job} | {' | '.join('-' if n is None else str(n) for n in numbers)} |")
