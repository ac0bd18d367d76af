"""How the benchmark takes turns and writes what it found; the parts themselves are measured by `make bench`."""
import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "bench"


@pytest.fixture
def bench(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    for path in FOLDER.glob("*.py"):    # its modules have common names: this test's end forgets them
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location("bench_main", FOLDER / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, file in (("RESULTS", "RESULTS.md"), ("PLOT", "results.png"), ("KEPT", "results.json")):
        monkeypatch.setattr(module, name, tmp_path / file)
    yield module
    for name in set(sys.modules) - before:
        if name in {path.stem for path in FOLDER.glob("*.py")}:
            del sys.modules[name]


def run(bench, monkeypatch, *args):
    def part(title):
        def measure(device, rounds=3):
            return [bench.Section(title, ["", "÷ minifast", "s"], [["minifast", "1.00", str(rounds)]], [],
                                  {"minifast": 2.0, "fastai 2": 3.0}, f"s, {title}")]
        return measure
    monkeypatch.setattr(bench, "PARTS", {name: part(name) for name in ("overhead", "warm")} |
                        {"seeds": lambda device: part("seeds")(device)})
    monkeypatch.setattr(sys, "argv", ["bench", *args])
    assert bench.main() == 0


def test_a_whole_run_replaces_every_time_and_a_trial_writes_nothing(bench, monkeypatch):
    old = {"sections": [], "machine": "an old one", "versions": "torch 1", "date": "2020-01-01"}
    bench.KEPT.write_text(json.dumps({"cpu": {"overhead": old, "imports": old, "seeds": old}}))
    before = bench.KEPT.read_text()
    run(bench, monkeypatch, "--rounds", "1")
    assert bench.KEPT.read_text() == before and not bench.RESULTS.exists()

    run(bench, monkeypatch)
    kept = json.loads(bench.KEPT.read_text())["cpu"]
    assert list(kept) == ["seeds", "overhead", "warm"] and kept["seeds"] == old
    text = bench.RESULTS.read_text()
    assert "| fastai 2 | 1.50 (3) | 1.50 (3) |" in text
    assert "overhead, warm: measured on 20" in text and "seeds: measured on 2020-01-01: an old one; torch 1." in text

    run(bench, monkeypatch, "--part", "warm")   # one part again: the others stay, each with its own run
    assert list(json.loads(bench.KEPT.read_text())["cpu"]) == ["seeds", "overhead", "warm"]


def test_a_table_leads_with_ratios_within_a_round(bench):
    timing = sys.modules["timing"]
    measured = {"b": [{"s": 4.0, "MiB": 8}, {"s": 40.0, "MiB": 8}], "a": [{"s": 2.0, "MiB": 9}, {"s": 10.0, "MiB": 9}],
                "c": "ImportError: no c"}
    assert timing.table(measured, "s", ["a"], "{:.1f}", MiB="{:.0f}") == [
        ["a", "1.00", "6.0", "9"], ["b", "3.00", "22.0", "8"], ["c", "left out", "", ""]]
    with pytest.raises(RuntimeError, match="c: ImportError: no c"):
        timing.all_ran(measured)


def test_watched_batches_count_over_passes(bench):
    seen = []
    batches = sys.modules["timing"].Watched(["x", "y"], 3, seen.append)
    assert list(batches) == ["x", "y", "x"] and len(batches) == 3 and list(batches) and seen == [0, 1, 2, 3, 4, 5]
