"""What the stored rows say: means, paired differences and their 95 % t intervals, as `PLAN.md` lays down."""
from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .jobs import shoots_up
from .plan import BUDGETS, MOMENTA, PAGE_ARMS, PARTS, SMITH_ROWS

__all__ = ["ANALYSES", "interval", "paired", "summary"]

Results = Mapping[str, Mapping[str, Any]]
Numbers = dict[str, Any]

# 97.5 % points of Student's t with 1, 2, ... 30 degrees of freedom
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
     2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)
WORST = 10.0    # a loss that is not finite, or above it, counts as this


# ---- statistics

def quantile(df: int) -> float:
    """The 97.5 % point of t; beyond the table by its expansion, good to 0.001."""
    return T[df - 1] if df <= len(T) else 1.95996 + 2.3723 / df + 2.8226 / df**2


def interval(values: Iterable[float]) -> Numbers:
    """Mean, sd, n and the 95 % t interval of the mean; no sd and no interval of a single value."""
    xs = list(values)
    if len(xs) < 2:
        return {"mean": xs[0] if xs else None, "sd": None, "n": len(xs), "low": None, "high": None}
    mean, sd = statistics.fmean(xs), statistics.stdev(xs)
    half = quantile(len(xs) - 1) * sd / math.sqrt(len(xs))
    return {"mean": mean, "sd": sd, "n": len(xs), "low": mean - half, "high": mean + half}


def paired(xs: Sequence[float], ys: Sequence[float]) -> Numbers:
    """`interval` of x - y over pairs, and in how many pairs x is smaller, larger, equal."""
    differences = [x - y for x, y in zip(xs, ys, strict=True)]
    return {**interval(differences), "smaller": sum(d < 0 for d in differences),
            "larger": sum(d > 0 for d in differences), "equal": differences.count(0)}


def ratio(xs: Sequence[float], ys: Sequence[float]) -> Numbers:
    """Geometric mean of x / y over pairs, with the 95 % t interval of the logarithms."""
    found = interval(math.log(x / y) for x, y in zip(xs, ys, strict=True))
    return {k: v if k in ("n", "sd") or v is None else math.exp(v) for k, v in found.items()}


def capped(loss: float | None) -> float:
    return WORST if loss is None else min(loss, WORST)


# ---- rows of the plan with their results

def done(part: str, results: Results, **fields: Any) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """(row, result) of the rows that have these fields, over the seeds of which all such rows are done."""
    rows = [row for row in PARTS[part].rows if all(row.get(k) == v for k, v in fields.items())]
    missing = {row["seed"] for row in rows if row["id"] not in results}
    return [(row, results[row["id"]]) for row in rows if row["seed"] not in missing]


def by_others(losses: Mapping[Any, Mapping[int, float]]) -> dict[int, Any]:
    """For each seed the key with the lowest mean loss over the other seeds. `losses`: key to seed to loss."""
    seeds = sorted(set.intersection(*(set(of) for of in losses.values())))
    return {seed: min(losses, key=lambda key: statistics.fmean(losses[key][s] for s in seeds if s != seed))
            for seed in seeds} if len(seeds) > 1 else {}


class Grid:
    """Final losses and accuracies of arms at several rates; an arm's rate for a seed is chosen by the other seeds."""

    def __init__(self, found: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], arm_of: Any) -> None:
        self.loss: dict[str, dict[float, dict[int, float]]] = {}
        self.accuracy: dict[str, dict[float, dict[int, float]]] = {}
        for row, result in found:
            arm, lr, seed = arm_of(row), row["lr"], row["seed"]
            self.loss.setdefault(arm, {}).setdefault(lr, {})[seed] = capped(result["valid_loss"][-1])
            self.accuracy.setdefault(arm, {}).setdefault(lr, {})[seed] = result["accuracy"][-1]
        self.chosen = {arm: by_others(rates) for arm, rates in self.loss.items()}

    def losses(self, arm: str) -> list[float]:
        return [self.loss[arm][lr][seed] for seed, lr in self.chosen[arm].items()]

    def accuracies(self, arm: str) -> list[float]:
        return [self.accuracy[arm][lr][seed] for seed, lr in self.chosen[arm].items()]

    def numbers(self, arm: str, reference: str) -> Numbers:
        """Of an arm, and of its paired difference to the reference."""
        means = {lr: statistics.fmean(of.values()) for lr, of in self.loss[arm].items()}
        best = min(means, key=lambda lr: means[lr])
        return {"rate": best, "edge": best in (min(means), max(means)),
                "by rate": {str(lr): mean for lr, mean in means.items()},
                "loss": interval(self.losses(arm)), "accuracy": interval(self.accuracies(arm)),
                "loss difference": paired(self.losses(arm), self.losses(reference)),
                "accuracy difference": paired(self.accuracies(arm), self.accuracies(reference))}


# ---- the parts

def page(results: Results) -> Numbers:
    """Part 1. Planned: over all seeds, and over those in which neither run is dead. That a network can be half dead
    (one output always 0, one class predicted, a loss below ln 2) was seen later: "both classes" leaves out these too.
    """
    found = done("1", results)
    by_arm = {arm: [r for row, r in found if row["arm"] == arm] for arm in PAGE_ARMS}
    reference = by_arm["fit_one_cycle 5e-2"]
    if not reference:
        return {}

    def is_dead(r: Mapping[str, Any]) -> bool:
        return abs(r["valid_loss"] - math.log(2)) < 1e-6 and r["classes"] == 1

    def is_half_dead(r: Mapping[str, Any]) -> bool:
        return r["classes"] == 1

    def both(key: str, arm: str) -> Numbers:
        pairs = list(zip(by_arm[arm], reference, strict=True))
        kept = {"all": pairs, "alive": [pair for pair in pairs if not any(map(is_dead, pair))],
                "both classes": [pair for pair in pairs if not any(map(is_half_dead, pair))]}
        return {name: paired([float(a[key]) for a, _ in of], [float(b[key]) for _, b in of])
                for name, of in kept.items()}

    arms = {arm: {"errors": interval(float(r["errors"]) for r in rs),
                  "loss": interval(r["valid_loss"] for r in rs),
                  "median errors": statistics.median(r["errors"] for r in rs),
                  "dead": sum(map(is_dead, rs)), "one class": sum(map(is_half_dead, rs)),
                  "rate": statistics.median(r["lr"] for r in rs),
                  "errors difference": both("errors", arm), "loss difference": both("valid_loss", arm)}
            for arm, rs in by_arm.items()}
    dead = [r for rs in by_arm.values() for r in rs if is_dead(r)]
    return {"seeds": len(reference), "arms": arms, "dead": {
        "runs": len(dead), "errors": sorted({r["errors"] for r in dead}),
        "furthest from ln 2": max((abs(r["valid_loss"] - math.log(2)) for r in dead), default=None)}}


TARGETS = [round(0.80 + 0.005 * i, 3) for i in range(25)]


def race(results: Results) -> Numbers:
    """Part 3."""
    found = done("3", results, experiment="race")
    accuracies: dict[str, dict[int, list[list[float]]]] = {}
    chosen: dict[str, Numbers] = {}
    for row, r in found:
        label = row["schedule"]["label"]
        accuracies.setdefault(label, {}).setdefault(row["seed"], []).append(r["accuracy"])
        chosen[label] = {"rate": r["lr"], "schedule": r["schedule"]}
    if not accuracies:
        return {}
    rates = {row["lr"] for row in PARTS["3"].rows if row["experiment"] == "tuning"}
    last = [run[-5:] for runs in accuracies["constant"].values() for run in runs]
    target = math.floor(1000 * statistics.fmean(a for run in last for a in run)) / 1000

    def epochs(label: str, seed: int, target: float) -> tuple[int, bool]:
        """The first epoch at the target, or the longest run and False."""
        firsts = [i + 1 for run in accuracies[label][seed] for i, a in enumerate(run) if a >= target]
        return (min(firsts), True) if firsts else (max(map(len, accuracies[label][seed])), False)

    def at(target: float) -> Numbers:
        of = {label: [epochs(label, seed, target) for seed in seeds] for label, seeds in accuracies.items()}
        return {label: {"epochs": interval(float(n) for n, _ in runs), "never": sum(not reached for _, reached in runs),
                        "ratio to 1cycle": ratio([n for n, _ in runs], [n for n, _ in of["one_cycle"]])}
                for label, runs in of.items()}

    best = {label: interval(max(a for run in runs for a in run) for runs in seeds.values())
            for label, seeds in accuracies.items()}
    final = {str(n): {label: interval(run[-1] for runs in seeds.values() for run in runs if len(run) == n)
                      for label, seeds in accuracies.items() if label not in ("constant", "plateau")} for n in BUDGETS}
    return {"seeds": len(accuracies["constant"]), "target": target,
            "chosen": {label: {**c, "edge": c["rate"] in (min(rates), max(rates))} for label, c in chosen.items()},
            "schedules": at(target), "best": best, "final": final,
            "by target": {str(t): {label: {"epochs": of["epochs"]["mean"], "never": of["never"]}
                                   for label, of in at(t).items()} for t in TARGETS}}


def momentum(results: Results) -> Numbers:
    """Part 5."""
    grid = Grid(done("5", results), lambda row: row["arm"])
    reference = "0.95 to 0.85"
    if not grid.chosen.get(reference):
        return {}
    constants = {(arm, lr): of for arm in MOMENTA if arm.startswith("always") for lr, of in grid.loss[arm].items()}
    chosen = by_others(constants)
    losses = [constants[key][seed] for seed, key in chosen.items()]
    accuracies = [grid.accuracy[arm][lr][seed] for seed, (arm, lr) in chosen.items()]
    keys = list(chosen.values())
    return {"seeds": len(chosen), "arms": {arm: grid.numbers(arm, reference) for arm in MOMENTA},
            "best constant": {"which": "{} at {}".format(*max(keys, key=keys.count)), "loss": interval(losses),
                              "loss difference": paired(losses, grid.losses(reference)),
                              "accuracy difference": paired(accuracies, grid.accuracies(reference))}}


def regret(results: Results) -> Numbers:
    """Part 7."""
    found = {}
    for data in ("fashion", "mnist"):
        grid = Grid(done("7", results, data=data), lambda row: row["schedule"]["label"])
        if grid.chosen.get("1cycle linear_cosine"):
            arms = {arm: grid.numbers(arm, "1cycle linear_cosine") for arm in grid.chosen}
            found[data] = {"seeds": len(grid.chosen["constant"]),
                           "schedules": dict(sorted(arms.items(), key=lambda item: item[1]["loss"]["mean"]))}
    return found


def article(results: Results) -> Numbers:
    """Part 4."""
    found = done("4", results, experiment="cycle")
    arms: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for row, r in found:
        arms.setdefault(row["arm"], []).append((row, r))
    numbers: Numbers = {"seeds": len(arms.get("long cycle", [])), "arms": {}, "range": {}}
    for arm, pairs in arms.items():
        before, after = [], []
        for row, r in pairs:
            gap = [v - f for v, f in zip(r["valid_loss"], r["fit_loss"], strict=True)]
            before.append(gap[int(2 * row["schedule"]["pct_start"] * row["epochs"]) - 1])
            after.append(gap[-1])
        long = [r for _, r in arms["long cycle"]]
        numbers["arms"][arm] = {
            "gap before annihilation": interval(before), "gap at the end": interval(after),
            "gap opened by annihilation": paired(after, before),
            **{key: interval(r[name][-1] for _, r in pairs)
               for key, name in (("loss", "valid_loss"), ("accuracy", "accuracy"), ("training loss", "fit_loss"))},
            "best loss on the way": interval(min(r["valid_loss"]) for _, r in pairs),
            **{f"{key} difference": paired([r[name][-1] for _, r in pairs], [r[name][-1] for r in long])
               for key, name in (("loss", "valid_loss"), ("accuracy", "accuracy"))}}
    for data in ("fashion", "mnist"):
        up: dict[float, list[float]] = {}
        for row, r in done("4", results, experiment="range", data=data):
            up.setdefault(row["wd"], []).append(shoots_up(r["lrs"], r["losses"]))
        if up:
            ones = {wd: [1.0] * len(at) for wd, at in up.items()}
            numbers["range"][data] = {"seeds": len(up[1e-4]), "ratio of 1e-4 to 1e-2": ratio(up[1e-4], up[1e-2]),
                                      **{str(wd): ratio(at, ones[wd]) for wd, at in up.items()}}
    return numbers if numbers["seeds"] or numbers["range"] else {}


def keras(results: Results) -> Numbers:
    """Part 6."""
    found: Numbers = {}
    if "rules" in results:
        rules = results["rules"]["regret"]
        found["rules"] = {rule: {"regret": interval(of), "minus basin": paired(of, rules["basin"]),
                                 "minus minimum": paired(of, rules["minimum"])} for rule, of in rules.items()}
    spoiled: dict[str, Numbers] = {}
    for bs in (32, 2048):
        by_seed: dict[int, list[tuple[float, bool, bool]]] = {}
        for row, r in done("6", results, experiment="NaN", bs=bs):
            is_nan = None in [*r["train_loss"], *r["valid_loss"]]
            by_seed.setdefault(row["seed"], []).append((row["lr"], is_nan, r["accuracy"][-1] <= 0.11))
        if by_seed:
            spoiled[str(bs)] = {"seeds": len(by_seed), **{
                key: [min((row[0] for row in of if row[i]), default=None) for of in by_seed.values()]
                for key, i in (("NaN from", 1), ("nothing learnt from", 2))}}
    versus: dict[str, Numbers] = {}
    for bs in (32, 2048):
        grid = Grid(done("6", results, experiment="versus", bs=bs), lambda row: row["schedule"]["label"])
        if grid.chosen.get("constant"):
            versus[str(bs)] = {"seeds": len(grid.chosen["constant"]),
                               **{arm: grid.numbers(arm, "one_cycle") for arm in grid.chosen}}
    return {**found, **({"spoiled": spoiled} if spoiled else {}), **({"versus": versus} if versus else {})}


def smith(results: Results) -> Numbers:
    """Part 2: by experiment and arm; a row counts as soon as it is done."""
    rows: dict[str, dict[str, dict[int, float]]] = {}
    for row in PARTS["2"].rows:
        if row["id"] in results:
            name = row["arm"].split()[0] if row["experiment"] != "conventions" else row["arm"]
            arm = rows.setdefault(row["experiment"], {}).setdefault(name, {})
            arm[row["seed"]] = results[row["id"]]["accuracy"][-1]
    found: Numbers = {experiment: {name: interval(of.values()) for name, of in arms.items()}
                      for experiment, arms in rows.items()}
    for arm, of in rows.get("conventions", {}).items():     # a network that fails predicts one class of ten
        learned = [accuracy for accuracy in of.values() if accuracy > 0.5]
        found["conventions"][arm] = {**interval(learned), "failed": len(of) - len(learned)}
    for arms, numbers in ((rows[e], found[e]) for e in rows):
        for a, b in (("S3", "S1"), ("S6", "S3")):
            if both := sorted(set(arms.get(a, {})) & set(arms.get(b, {}))):
                numbers[f"{a} minus {b}"] = paired([arms[a][s] for s in both], [arms[b][s] for s in both])
    return found


PUBLISHED = dict(zip(SMITH_ROWS, (0.9903, 0.9900, 0.9925, 0.9928, 0.9927, 0.9935), strict=True))
ANALYSES = {"1": page, "2": smith, "3": race, "4": article, "5": momentum, "6": keras, "7": regret}


def summary(results: Mapping[str, Results]) -> dict[str, Numbers]:
    """The numbers of every part; nothing for those of which too little is done."""
    return {part: analysis(results.get(part, {})) for part, analysis in ANALYSES.items()}
