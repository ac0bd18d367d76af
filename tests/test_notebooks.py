"""Every notebook runs, and holds the outputs of a run."""
import importlib.util
from pathlib import Path

import nbformat
import pytest

NBS = Path(__file__).parents[1] / "nbs"
NOTEBOOKS = sorted(p.name for p in NBS.glob("*.ipynb"))


@pytest.fixture
def notebooks(monkeypatch):
    monkeypatch.setenv("MINIFAST_SHORT", "1")       # the notebooks that take longer have a short form
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a kernel draws with its own
    spec = importlib.util.spec_from_file_location("run_notebooks", NBS / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("default")  # nbclient's and the kernel's own
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs(name, notebooks):
    if reason := notebooks.missing(name):
        pytest.skip(reason)
    notebook = notebooks.run(NBS / name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    told = [o.text for cell in code for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"]
    assert code and not [text for text in told if "Warning" in text]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_holds_its_outputs(name):
    notebook = nbformat.read(NBS / name, as_version=4)
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert not any(o.output_type == "error" for o in outputs)
