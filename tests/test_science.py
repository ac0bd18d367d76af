"""The experiments of tests/science: each in a short form, and the published numbers from the stored rows."""
import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from science import __main__ as command
from science import analysis, jobs, plan, report

SCIENCE = Path(__file__).parent / "science"
MADE_UP = {"fashion": None, "mnist": None}


# ---- the plan

def test_the_plan_in_words_has_every_part():
    words = (SCIENCE / "PLAN.md").read_text()
    assert [f"## {part}. {plan.PARTS[part].title}" in words for part in sorted(plan.PARTS)] == [True] * 7


@pytest.mark.parametrize("part", plan.PARTS)
def test_the_stored_rows_are_those_of_the_plan(part):
    assert command.load(part).keys() <= {row["id"] for row in plan.PARTS[part].rows}


# ---- what is published

def test_the_stored_rows_give_the_published_numbers():
    published = json.loads((SCIENCE / "results" / "summary.json").read_text())
    found = json.loads(json.dumps(analysis.summary({part: command.load(part) for part in plan.PARTS})))
    words, other = ({k: v for k, v in flat(x).items() if isinstance(v, str)} for x in (found, published))
    assert words == other
    numbers, other = ({k: v for k, v in flat(x).items() if not isinstance(v, str)} for x in (found, published))
    assert numbers == pytest.approx(other, rel=1e-9, nan_ok=True)


def test_the_page_is_what_the_published_numbers_say():
    published = json.loads((SCIENCE / "results" / "summary.json").read_text())
    docs = SCIENCE.parents[1] / "docs"
    assert (docs / "claims.md").read_text() == report.page(published, command.status())
    assert all((docs / "claims" / f"{part}.png").exists() for part, of in published.items() if of)


def flat(numbers, at=""):
    """A nested dict as one of paths, for a comparison of its numbers."""
    if isinstance(numbers, dict):
        return {k: v for key, of in numbers.items() for k, v in flat(of, f"{at}/{key}").items()}
    if isinstance(numbers, list):
        return flat(dict(enumerate(numbers)), at)
    return {at: math.nan if numbers is None else numbers}


# ---- a short form of each part

def shortened(part):
    """Two seeds, two rates, two epochs, one data set."""
    seeds = sorted({row["seed"] for row in part.rows if row.get("experiment") != "tuning" and "seed" in row})[:2]

    def kept(row):
        in_grid = row["kind"] == "train" and "pct_start" not in row["schedule"] and row["lr"] != "tuned"
        return (row.get("seed", seeds[0]) in (*seeds, 100, 101)
                and not (in_grid and row["lr"] not in (0.03, 0.1))
                and not row["id"].startswith("mnist") and row.get("experiment") not in ("style", "conventions")
                and not (row.get("experiment") == "race" and 3 < row["epochs"] < 32))

    rows = tuple({**row, "epochs": min(row.get("epochs", 1), 2), "n_it": 20} for row in part.rows if kept(row))
    return dataclasses.replace(part, rows=rows)


@pytest.mark.parametrize("part", plan.PARTS)
def test_a_short_form_runs_and_goes_on(part, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(plan.PARTS, part, shortened(plan.PARTS[part]))
    rows = plan.PARTS[part].rows
    assert command.main(["--part", part, "--minutes", "0"], tmp_path, MADE_UP) == 0     # begins nothing
    assert f"0 of {len(rows)} rows, the rest not run" in capsys.readouterr().out
    command.main(["--part", part], tmp_path, MADE_UP)
    results = command.load(part, tmp_path)
    assert list(results) == [row["id"] for row in rows]
    command.run_parts([part], tmp_path, MADE_UP, 99, math.inf, 1, "cpu")    # all is there: nothing is run again
    assert command.load(part, tmp_path) == results
    assert analysis.ANALYSES[part](results)
    assert f"(claims/{part}.png)" in (tmp_path / "claims.md").read_text()
    assert (tmp_path / "claims" / f"{part}.png").stat().st_size > 10_000


# ---- the statistics

def test_interval():
    found = analysis.interval([1.0, 2.0, 3.0, 4.0])
    assert found["mean"] == 2.5 and found["n"] == 4
    assert found["sd"] == pytest.approx(1.290994)
    assert [found["low"], found["high"]] == pytest.approx([0.4457, 4.5543], abs=1e-3)   # scipy's t.interval
    assert analysis.interval([3.0]) == {"mean": 3.0, "sd": None, "n": 1, "low": None, "high": None}
    assert analysis.interval([])["mean"] is None


@pytest.mark.parametrize("df, point", [(1, 12.706), (4, 2.776), (19, 2.093), (30, 2.042), (40, 2.021), (120, 1.980)])
def test_quantile(df, point):
    assert analysis.quantile(df) == pytest.approx(point, abs=1e-3)


def test_paired_differences_are_by_seed():
    found = analysis.paired([10.0, 20.0, 30.0], [9.0, 20.0, 32.0])
    assert [found["smaller"], found["larger"], found["equal"]] == [1, 1, 1]
    assert found["mean"] == pytest.approx(-1 / 3)


def test_ratio_is_a_geometric_mean():
    found = analysis.ratio([8.0, 2.0], [1.0, 1.0])
    assert found["mean"] == pytest.approx(4.0) and found["n"] == 2
    assert found["low"] * found["high"] == pytest.approx(16.0)


def test_a_seed_does_not_choose_for_itself():
    # by the mean of both seeds 0.1 would be best; each seed alone likes what is bad for the other
    losses = {0.1: {0: 2.0, 1: 2.0}, 0.3: {0: 1.0, 1: 9.0}, 1.0: {0: 9.0, 1: 1.0}}
    assert analysis.by_others(losses) == {0: 1.0, 1: 0.3}
    assert analysis.by_others({0.1: {0: 2.0}}) == {}


def test_a_loss_that_is_not_finite_counts_as_ten():
    assert [analysis.capped(x) for x in (None, 25.0, 0.5)] == [10.0, 10.0, 0.5]


# ---- what the rows are made of

def test_caffe_and_torch_put_the_learning_rate_on_different_sides_of_the_momentum():
    def run(lrs, **options):
        p = torch.nn.Parameter(torch.ones(1, 1))
        opt = jobs.CaffeSGD([p], momentum=0.5, **options)
        for lr in lrs:
            opt.param_groups[0]["lr"] = lr
            p.grad = torch.ones(1, 1)
            opt.step()
        return float(p.detach())

    assert run([0.1, 0.1]) == pytest.approx(run([0.1, 0.1], velocity="torch"))
    assert run([0.1, 0.2]) == pytest.approx(1 - 0.1 - (0.05 + 0.2))
    assert run([0.1, 0.2], velocity="torch") == pytest.approx(1 - 0.1 - 0.2 * 1.5)
    assert run([0.1], nesterov=True) == pytest.approx(1 - 1.5 * 0.1)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_torch_convention_is_torch_s_own(nesterov):
    def run(optimizer, **options):
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        opt = optimizer(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=nesterov, **options)
        for lr in (0.1, 0.3, 0.2):
            opt.param_groups[0]["lr"] = lr
            opt.zero_grad()
            layer(torch.ones(4, 3)).square().sum().backward()
            opt.step()
        return torch.cat([p.detach().flatten() for p in layer.parameters()])

    torch.testing.assert_close(run(jobs.CaffeSGD, velocity="torch"), run(torch.optim.SGD))


def test_biases_learn_at_twice_the_rate():
    layer = torch.nn.Linear(1, 1)
    before = [p.item() for p in layer.parameters()]
    for p in layer.parameters():
        p.grad = torch.ones_like(p)
    jobs.CaffeSGD(layer.parameters(), lr=0.1, bias_lr=2.0).step()
    assert [b - p.item() for b, p in zip(before, layer.parameters(), strict=True)] == pytest.approx([0.1, 0.2])


def test_lenet_is_caffe_s():
    net = jobs.lenet("xavier")
    assert sum(p.numel() for p in net.parameters()) == 431_080
    assert float(net[0].weight.detach().abs().max()) <= math.sqrt(3 / 25)


@pytest.mark.parametrize("kind, at, expected", [
    ("exponential", 500, 0.1), ("step", 499, 1.0), ("step", 500, 0.1), ("step", 750, 0.01),
    ("inv", 999, 1.0999**-0.75),
    ("smith_step", 874, 0.316**2), ("smith_step", 940, 0.316**5), ("warm_cosine", 0, 1 / 25), ("warm_cosine", 100, 1.0),
    ("triangular", 250, 1.0), ("triangular", 500, 0.1), ("restarts", 335, 1.0), ("flat_cosine", 720, 1.0)])
def test_schedules_are_as_the_plan_says(kind, at, expected):
    assert jobs.curve_of(kind, 1.0, 10)(1000, 100)(at) == pytest.approx(expected, rel=2e-3)


def test_where_a_loss_shoots_up():
    lrs = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert jobs.shoots_up(lrs, [2.0, 1.0, 1.4, 1.5, 9.0]) == 4.0    # half of what it had fallen
    assert jobs.shoots_up(lrs, [2.0, 1.0, 1.4, None, None]) == 4.0
    assert jobs.shoots_up(lrs, [2.0, 1.5, 1.4, 1.2, 1.0]) == 5.0    # never


def test_a_race_takes_the_rate_that_the_tuning_chose():
    tuning = [row for row in plan.PARTS["3"].rows if row["experiment"] == "tuning"]
    results = {row["id"]: {"accuracy": [0.5]} for row in tuning}
    results |= {row["id"]: {"accuracy": [0.9]} for row in tuning
                if row["schedule"]["label"] == "one_cycle_three" and row["lr"] == 0.3}
    results |= {row["id"]: {"accuracy": [0.8]} for row in tuning
                if row["schedule"]["label"] == "cosine" and row["lr"] == 0.1}
    races = {row["schedule"]["label"]: row for row in plan.PARTS["3"].rows if row["experiment"] == "race"}
    row, lr = jobs.with_tuned_rate(races["one_cycle"], results)
    assert (row["schedule"]["label"], lr) == ("one_cycle_three", 0.3)
    assert jobs.with_tuned_rate(races["cosine"], results)[1] == 0.1


# ---- the dead network: what a page of fastai's documentation shows for lr 1

def test_a_network_that_dies_has_the_loss_ln_2():
    dead = command.load("1")["fit 1, seed 0"]
    assert dead["valid_loss"] == pytest.approx(math.log(2), abs=2e-7)
    assert dead["errors"] == 2038 - 1010
