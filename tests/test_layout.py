"""What the design says of modules and imports, read off the files."""
import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "minifast"

# a module imports only from modules of a smaller rank
RANKS = {
    "deprecation": 1,
    "disk": 1,
    "distributed": 1,
    "frames": 1.2,
    "checks": 1,
    "order": 1,
    "torch_private": 1,
    "utils": 1.1,
    "kinds": 2,
    "module_state": 2,
    "keeping": 2.1,
    "restoring": 2.2,
    "stepper": 2,
    "suggestion": 2,
    "schedules": 2.5,
    "one_cycle_forms": 2.6,
    "state": 3,
    "signatures": 3.5,
    "callback": 4,
    "losses": 4.5,
    "denominators": 4.6,
    "model_loss": 4.6,
    "loop": 5,
    "optimizer_state": 5.5,
    "fused": 5.7,
    "optimizer": 6,
    "layers": 7,
    "blocks": 7.1,
    "columns": 6.9,
    "metrics": 7,
    "confusion": 7,
    "scores": 7.1,
    "arrays": 7.5,
    "batches": 7.5,
    "hooks": 7.5,
    "program": 7.5,
    "tracing": 7.6,
    "layer_groups": 7.5,
    "archives": 7.9,
    "workers": 7.9,
    "datasets": 8,
    "loaders": 8,
    "samplers": 8.1,
    "core": 8.1,
    "torch_core": 7,
    "data_objects": 8.1,
    "device_loader": 8.2,
    "streams": 8.3,
    "data": 8.5,
    "files": 9,
    "exchange": 9.6,
    "failures": 1.1,
    "plots": 9,
    "sharded": 2,
    "progress": 9,
    "snapshot": 9,
    "recorder": 9.5,
    "runs": 9.6,
    "settings": 9.6,
    "run_state": 9.5,
    "same_run": 9.5,
    "going_on": 9.6,
    "weights": 9.5,
    "callbacks.agreement": 10,
    "callbacks.averaging": 10,
    "callbacks.hook_callback": 10,
    "callbacks.probe": 10,
    "callbacks.scheduler": 10,
    "callbacks.run_tracker": 10.1,
    "callbacks.tracker": 10.1,
    "callbacks.*": 10.2,
    "callbacks": 10.3,
    "check": 10.5,
    "onnx_file": 10.7,
    "export": 10.8,
    "inference": 10.5,
    "interpret": 10.6,
    "predicting": 10.7,
    "summary": 10.5,
    "report": 10.5,
    "learner": 11,
    "basics": 11.5,
    "": 11.6,
    "vision.folders": 12,
    "vision.backbones": 12,
    "vision.picture": 11.9,
    "vision.image": 12,
    "vision.labels": 12,
    "vision.tables": 12,
    "vision.warp": 12,
    "vision.masks": 12.1,
    "vision.plan": 12.1,
    "vision.augment": 12.2,
    "vision.geometry": 12.3,
    "vision.transform": 12.4,
    "vision.dataset": 12.5,
    "vision.tta": 12.5,
    "vision.loading": 12.6,
    "vision.recipe": 12.6,
    "vision.show": 12.65,
    "vision.data": 12.7,
    "vision.transfer": 12.75,
    "vision.unet": 12.76,
    "vision.labelled": 12.71,
    "vision.image_list": 12.72,
    "vision.*": 12.8,
    "table_recipe": 12.8,
    "exported": 12.85,
    "vision": 12.9,
    "tabular.procs": 12,
    "tabular.data": 12.1,
    "tabular.model": 12.2,
    "tabular": 12.9,
    "__main__": 13,
    "bundled.build_mnist_sample": 13,
    "fakes": 13,
}
STAR_MODULES = {"", "basics", "callbacks", "tabular", "vision"}
NEWCOMERS_PATH = ("state.py", "loop.py", "callback.py", "callbacks/one_cycle.py")
NO_TORCH = ("stepper", "suggestion")
TOP_LEVEL = {"setup.cfg", "README.md", "minifast", "tests", "nbs", "docs", "examples", "Makefile", "pyproject.toml",
             "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", ".gitignore", ".ci"}


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def rank(name):
    return RANKS[name] if name in RANKS else RANKS[f"{name.partition('.')[0]}.*"]


def imports(name):
    """Every import in the module, also inside functions, but those for the type checker only: (module, names)."""
    path = MODULES[name]
    package = ["minifast", *name.split(".")] if name else ["minifast"]
    if path.name != "__init__.py":
        package = package[:-1]
    tree = ast.parse(path.read_text())
    for_types = {node for test in ast.walk(tree) if isinstance(test, ast.If)
                 and ast.unparse(test.test) == "TYPE_CHECKING" for branch in test.body for node in ast.walk(branch)}
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])]), [alias.name for alias in node.names]


def own_imports(name):
    """The minifast modules that a module imports."""
    for module, names in imports(name):
        if module.split(".")[0] == "minifast":
            inner = module.removeprefix("minifast").removeprefix(".")
            submodules = [f"{inner}.{n}".removeprefix(".") for n in names]
            yield from ([s for s in submodules if s in MODULES] or [inner])


def test_every_module_has_a_rank():
    assert [name for name in MODULES if name not in RANKS and f"{name.partition('.')[0]}.*" not in RANKS] == []


def test_the_imports_are_read():
    assert set(own_imports("loop")) == {"callback", "checks", "denominators", "utils"}
    assert {"callbacks.one_cycle", "plots"} <= set(own_imports("learner")) | set(own_imports("recorder"))


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downward(name):
    assert [other for other in own_imports(name) if rank(other) >= rank(name)] == []


@pytest.mark.parametrize("name", NO_TORCH)
def test_pure_modules_know_no_torch(name):
    assert [module for module, _ in imports(name) if module.split(".")[0] == "torch"] == []
    assert all(rank(other) < rank("state") for other in own_imports(name))


@pytest.mark.parametrize("name", MODULES)
def test_star_imports_stand_in_the_star_modules_only(name):
    stars = [module for module, names in imports(name) if "*" in names]
    assert stars == [] or name in STAR_MODULES


@pytest.mark.parametrize("name", [n for n in MODULES if not n.startswith("bundled")])
def test_all_is_there_and_true(name):
    module = importlib.import_module(f"minifast.{name}".removesuffix("."))
    assert [n for n in module.__all__ if not hasattr(module, n)] == []
    assert len(set(module.__all__)) == len(module.__all__)
    assert module.__doc__
    if name not in STAR_MODULES:    # what a module gives is made in it
        tree = ast.parse(MODULES[name].read_text())
        defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        defined |= {t.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
                    for t in ast.walk(target) if isinstance(t, ast.Name)}
        defined |= {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
        assert set(module.__all__) - defined == set()


def test_star_modules_give_all_that_they_stand_for():
    from minifast import basics, callbacks, tabular, vision
    for name in ("callback", "callbacks", "data", "datasets", "device_loader", "layers", "learner", "metrics",
                 "optimizer", "recorder"):
        assert set(importlib.import_module(f"minifast.{name}").__all__) <= set(basics.__all__)
    assert set(basics.__all__) < set(vision.__all__)
    assert set(basics.__all__) < set(tabular.__all__)
    assert {"torch", "nn", "F", "np", "partial", "Path"} <= set(basics.__all__)
    assert {"OneCycleScheduler", "LRFinder"} <= set(callbacks.__all__)


def test_what_a_newcomer_reads_is_short():
    assert sum(len((PACKAGE / name).read_text().splitlines()) for name in NEWCOMERS_PATH) <= 500


def test_every_file_of_callbacks_is_exported_and_has_a_callback():
    package = importlib.import_module("minifast.callbacks")
    text = (PACKAGE / "callbacks/__init__.py").read_text()
    callback = importlib.import_module("minifast.callback").Callback
    for path in (PACKAGE / "callbacks").glob("[a-z]*.py"):
        line = f"from .{path.stem} import *"
        assert f"{line}\n" in text, f"add the line `{line}` to callbacks/__init__.py"
        assert f"{path.stem}" in package.__doc__, f"name {path.stem} among the families in callbacks/__init__.py"
        module = importlib.import_module(f"minifast.callbacks.{path.stem}")
        made = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, callback)
                and c.__module__ == module.__name__]
        assert made, f"{path.name} holds no callback"
        assert set(module.__all__) <= set(package.__all__)


def test_all_of_tables_is_short():
    assert sum(len(path.read_text().splitlines()) for path in (PACKAGE / "tabular").glob("*.py")) <= 350


def test_no_module_is_long():
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    limits = {"learner": 450}
    assert {name: n for name, n in lengths.items() if n > limits.get(name, 300)} == {}


def test_no_file_of_callbacks_is_long():
    lengths = {path.name: len(path.read_text().splitlines()) for path in (PACKAGE / "callbacks").glob("*.py")}
    assert len(lengths) > 20 and {name: n for name, n in lengths.items() if n > 150} == {}


IMPORT_IS_CHEAP = """
import gc, os, pathlib, random, signal, sys, warnings
import numpy, torch, torch.utils.data

def world():
    classes = (torch.Tensor, torch.nn.Module, torch.optim.Optimizer, torch.utils.data.DataLoader, pathlib.Path)
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": torch.get_default_dtype(), "grad": torch.is_grad_enabled(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark),
        "precision": torch.get_float32_matmul_precision(),
        "print": (repr(torch._tensor_str.PRINT_OPTS), numpy.get_printoptions()),
        "numpy errors": numpy.geterr(), "filters": list(warnings.filters), "environment": dict(os.environ),
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "signals": {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)},
        "hooks": (sys.excepthook, sys.displayhook), "path": list(sys.path),
        "classes": [{k: v for k, v in vars(c).items() if k != "__dict__"} for c in classes],
        "generators": (torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()),
    }

before = world()
import minifast.tabular, minifast.vision
after = world()
print("changed:", [k for k in before if before[k] != after[k]])
heavy = {"torchvision", "matplotlib", "pandas", "fastprogress", "PIL", "IPython", "tensorboard"}
print("loaded:", sorted(heavy & set(sys.modules)))
"""


def test_importing_is_cheap_and_changes_nothing():
    command = [sys.executable, "-W", "error", "-c", IMPORT_IS_CHEAP]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert out.stdout == "changed: []\nloaded: []\n", out.stdout + out.stderr


def git(*args):
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout knows which files are the project's")
def test_the_top_level_holds_what_the_design_lists():
    assert {name.split("/")[0] for name in git("ls-files", "--cached", "--others", "--exclude-standard")} <= TOP_LEVEL


def test_no_file_mentions_a_machines_path():
    folders = [ROOT / name for name in ("minifast", "tests", "nbs", ".ci")]
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    text = {".py", ".md", ".ipynb", ".cfg", ".toml", ".json", ".csv", ".txt", ".sh", ""}
    files = [p for p in [*files, *ROOT.glob("*.*"), ROOT / "Makefile"] if p.is_file() and p.suffix in text]
    pattern = re.compile(r"(?<![\w.:/<{}])/(?:work|root|home|Users|tmp|mnt|opt|usr/local)/\w")
    assert [(p, found) for p in files if (found := pattern.findall(p.read_text(errors="ignore")))] == []


def test_attributes_of_callbacks_are_declared_so_none_is_asked_for():
    asked = re.compile(r'vars\(self\)\.(get|pop)|in vars\(self\)|(getattr|hasattr)\(self, "')
    found = [path.name for path in (PACKAGE / "callbacks").glob("*.py") if asked.search(path.read_text())]
    assert found == []
