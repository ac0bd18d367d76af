"""The README's own blocks, run one after the other as a reader would."""
import re
from pathlib import Path

import matplotlib.pyplot as plt

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_its_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) >= 2
    names = {"__name__": "__main__"}
    for i, block in enumerate(blocks):
        exec(compile(block, f"README block {i + 1}", "exec"), names)
        plt.close("all")
    printed = capsys.readouterr().out
    assert re.search(r"^1 +0\.\d{6} +0\.\d{6} +0\.9[89]\d{4} +\d\d:\d\d$", printed, re.M)


def test_its_commands_are_targets():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    commands = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))
    assert {"train", "test"} <= commands
    assert all(re.search(rf"^{c}:", makefile, re.M) for c in commands)


def test_its_links_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (Path(__file__).parents[1] / link).exists(), link
