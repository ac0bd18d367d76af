"""`python -m minifast`: what it prints and writes, and how it answers bad values."""
import os
import subprocess
import sys

import pandas as pd
import pytest

from minifast.__main__ import main


def run(*args, cwd):
    return subprocess.run([sys.executable, "-m", "minifast", *args], cwd=cwd, capture_output=True, text=True)


def test_the_main_job(tmp_path):
    done = run("--epochs", "1", "--seed", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "\r" not in done.stdout and "\x1b" not in done.stdout
    header = next(line for line in lines if line.startswith("epoch"))
    assert header.split() == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    row = lines[lines.index(header) + 1].split()
    history = pd.read_csv(tmp_path / "out" / "history.csv")
    assert list(history.columns) == header.split() and len(history) == 1
    assert row[1:4] == [f"{v:.6f}" for v in history.iloc[0, 1:4]]
    assert history["accuracy"][0] > 0.9
    assert "out/: lr_finder.png, lr_and_momentum.png, losses_and_metrics.png, history.csv, report.html" in lines[-1]
    report = tmp_path / "out" / "report.html"
    assert report.stat().st_size < 2**20 and ">".join(["<td", row[3]]) in report.read_text()
    for name in ("lr_finder.png", "lr_and_momentum.png", "losses_and_metrics.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("args, says", [
    (["--epochs", "0"], "argument --epochs: epochs must be at least 1, not 0"),
    (["--epochs", "two"], "argument --epochs: invalid literal"),
    (["--lr", "-1"], "argument --lr: lr must be a finite number above 0, not -1.0"),
    (["--lr", "nan"], "argument --lr: lr must be a finite number above 0, not nan"),
    (["--bs", "0"], "argument --bs: bs must be at least 1, not 0"),
    (["--device", "abacus"], "argument --device:"),
    (["--out", "a_file"], "File exists: 'a_file'"),
    (["--bs", "100000"], "12396 training samples do not fill one batch of 100000"),
    (["--what"], "unrecognized arguments: --what"),
])
def test_a_bad_value_is_one_clear_line(args, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").write_text("")
    with pytest.raises(SystemExit) as e:
        main(args)
    err = capsys.readouterr().err
    assert e.value.code == 2 and says in err and err.count("\n") == 1


@pytest.mark.parametrize("given, threads", [(None, 1), ("2", 2)])
def test_the_program_takes_one_thread_unless_the_user_says_how_many(given, threads):
    code = ("import runpy, sys, torch\nsys.argv = ['minifast', '--help']\n"
            "try: runpy.run_module('minifast', run_name='__main__')\nexcept SystemExit: print(torch.get_num_threads())")
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    env |= {"OMP_NUM_THREADS": given} if given else {}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == str(threads), done.stderr


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as e:
        main(["--help"])
    out = capsys.readouterr().out
    assert e.value.code == 0 and all(f"--{o}" in out for o in ("epochs", "lr", "bs", "seed", "out", "device"))
