"""Run notebooks and write their outputs into them: `python nbs/run.py [name ...]`, all of them by default."""
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
TEMPORARY = re.compile(re.escape(str(Path(tempfile.gettempdir()).resolve())) + r"/tmp\w+/")
MNIST = HERE / os.environ.get("MNIST", "../data/mnist")     # relative to the notebooks


def missing(name: str) -> str:
    """What the notebook needs and is not there, in words; an empty string if nothing is missing."""
    if name == "07_transfer.ipynb" and not (MNIST / "train-images-idx3-ubyte.gz").is_file():
        return "MNIST's four files are not in data/mnist, and the variable MNIST names no folder with them"
    return ""


def run(path: Path, timeout: int = 600) -> nbformat.NotebookNode:
    """The notebook with its outputs; raises CellExecutionError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False,
                   resources={"metadata": {"path": str(path.parent)}}).execute()
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        if "text" in output:    # where a machine keeps its temporary files is of no interest
            output["text"] = TEMPORARY.sub("", output["text"])
    return notebook


if __name__ == "__main__":
    for path in sorted(HERE / name for name in sys.argv[1:]) or sorted(HERE.glob("*.ipynb")):
        if reason := missing(path.name):
            print(f"{path.name}: left as it is, because {reason}")
            continue
        nbformat.write(run(path), path)
        print(f"{path.name}: done")
