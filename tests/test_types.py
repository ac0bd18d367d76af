"""The package's types, as they reach a user who checks a script."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is a developer's tool, which this environment lacks")
HERE = Path(__file__).parent
# torch and the like are taken as they come: to read them too would take a minute
SETTINGS = """
[mypy]
strict = True
follow_imports = silent
allow_subclassing_any = True
[mypy-torch.*,torchvision.*,numpy.*,pandas.*,matplotlib.*,PIL.*,fastprogress.*,IPython.*]
follow_imports = skip
ignore_missing_imports = True
"""


def test_a_users_files_are_strictly_typed(tmp_path):
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    command = [sys.executable, "-m", "mypy", "--config-file", str(tmp_path / "mypy.ini"), "--cache-dir", str(tmp_path),
               "a_script.py", "a_callback.py"]
    done = subprocess.run(command, cwd=HERE / "typed", capture_output=True, text=True,
                          env={**os.environ, "MYPYPATH": str(HERE.parent)})
    assert done.returncode == 0, done.stdout + done.stderr
