"""Run jobs of examples/ as they are written for other libraries: `python tests/bench/jobs fastai_2 gan vae`.

`epochs=2` and the like go to each job's main, as the short form. In the environment of `make bench`; some jobs need
transformers, mlflow, optuna and optuna-integration, accelerate or torchdata beside it.
"""
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))

if __name__ == "__main__":      # two processes import this file, too
    library, *words = sys.argv[1:]
    settings = {name: int(value) for name, _, value in (word.partition("=") for word in words if "=" in word)}
    for job in words:
        if "=" not in job:
            importlib.import_module(f"{library}.{job}").main(**settings)
