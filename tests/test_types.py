"""The package's types, as they reach a user who checks a script of his or her own."""
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_a_users_files_are_strictly_typed(tmp_path):
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path), "--config-file", "",
               "a_script.py", "a_callback.py"]
    done = subprocess.run(command, cwd=HERE / "typed", capture_output=True, text=True,
                          env={"MYPYPATH": str(HERE.parent), "PATH": "", "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
