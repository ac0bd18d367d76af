"""Run notebooks and write their outputs into them: `python nbs/run.py [name ...]`, all of them by default."""
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def run(path: Path, timeout: int = 600) -> nbformat.NotebookNode:
    """The notebook with its outputs; raises CellExecutionError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False,
                   resources={"metadata": {"path": str(path.parent)}}).execute()
    return notebook


if __name__ == "__main__":
    for path in sorted(HERE / name for name in sys.argv[1:]) or sorted(HERE.glob("*.ipynb")):
        nbformat.write(run(path), path)
        print(f"{path.name}: done")
