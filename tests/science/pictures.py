"""A picture for each claim, drawn from the stored rows and the numbers of `analysis`."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minifast.callbacks.one_cycle import ONE_CYCLE_FORMS

from .analysis import PUBLISHED, Numbers, Results, done
from .plan import ARTICLE_ARMS, MOMENTA, PAGE_ARMS, SMITH_ROWS, WDS

__all__ = ["PICTURES"]

PLAIN, BETTER, WORSE = "0.45", "tab:green", "tab:red"


def _figure(width: float, height: float, columns: int, rows: int = 1, **options: Any) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    axes = np.atleast_1d(figure.subplots(rows, columns, **options)).flatten().tolist()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def forest(ax: Any, rows: Mapping[str, Numbers], at: float | None = 0.0, form: str = "{:+.3f}",
           notes: Mapping[str, str] | None = None) -> None:
    """A line for each row: its mean, its 95 % interval, and both in words with n. Green where the whole interval is on
    the better side of `at`, red where it is on the worse one; None: there is nothing to be better than."""
    for i, (name, found) in enumerate(rows.items()):
        mean, low, high = found["mean"], found["low"], found["high"]
        if low is None:
            low = high = mean
        colour = PLAIN if at is None or low <= at <= high else BETTER if high < at else WORSE
        ax.plot([low, high], [i, i], color=colour, lw=2.5, solid_capstyle="butt")
        ax.plot(mean, i, "o", color=colour, ms=6)
        words = f"{form.format(mean)} ({form.format(low)} to {form.format(high)}), n={found['n']}"
        ax.annotate(words + (notes or {}).get(name, ""), (1.02, i), xycoords=("axes fraction", "data"), va="center",
                    fontsize=8)
    if at is not None:
        ax.axvline(at, color="black", lw=0.8, zorder=0)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _band(ax: Any, ys: Sequence[Sequence[float]], x: Any = None, **options: Any) -> None:
    """The mean over seeds, and lightly all between the lowest and the highest."""
    table = np.array(ys, float)
    x = np.arange(1, table.shape[1] + 1) if x is None else x
    line = ax.plot(x, table.mean(0), **options)[0]
    ax.fill_between(x, table.min(0), table.max(0), color=line.get_color(), alpha=0.2, lw=0)


def page(results: Results, found: Numbers) -> Figure:
    """Part 1."""
    figure, (dots, lines) = _figure(11, 4.2, 2, width_ratios=[1.2, 1])
    rng = np.random.default_rng(0)
    for i, arm in enumerate(PAGE_ARMS):
        errors = np.array([r["errors"] for row, r in done("1", results) if row["arm"] == arm])
        colour = "tab:orange" if "cycle" in arm else "tab:blue"
        dots.scatter(i + rng.uniform(-0.25, 0.25, len(errors)), errors, s=14, alpha=0.6, color=colour)
        dots.plot([i - 0.35, i + 0.35], [found["arms"][arm]["median errors"]] * 2, color="black")
    dots.set_yscale("log")
    dots.set_yticks([10, 20, 50, 100, 1028], ["10", "20", "50", "100", "1028"])
    dots.minorticks_off()
    names = [arm.replace("fit_one_cycle", "1cycle").replace(" ", "\n") for arm in PAGE_ARMS]
    dots.set_xticks(range(len(names)), names, fontsize=8)
    dots.set_ylabel("errors of 2,038 (logarithmic)")
    dots.set_title(f"Each dot a seed (n={found['seeds']}), the line their median;\n"
                   "at 1028 one class is predicted throughout", fontsize=9)
    differences = {arm: of["errors difference"] for arm, of in found["arms"].items() if "cycle" not in arm}
    rows = {arm: of["both classes"] for arm, of in differences.items() if of["both classes"]["n"] > 1}
    notes = {arm: f" of {differences[arm]['all']['n']}" for arm in rows}
    forest(lines, rows, form="{:+.1f}", notes=notes)
    lines.set_xlabel("errors more than 1cycle at 5e-2, same seed")
    lines.set_title("Mean paired difference and 95 % interval,\nwhere both networks predict both classes", fontsize=9)
    return figure


LABELS = {"one_cycle": "1cycle", "warm_cosine": "warm-up + cosine"}


def race(results: Results, found: Numbers) -> Figure:
    """Part 3."""
    figure, (curves, lines) = _figure(11, 4, 2, width_ratios=[1.1, 1])
    for label in found["schedules"]:
        points = [(100 * float(t), of[label]["epochs"]) for t, of in found["by target"].items()
                  if not of[label]["never"]]
        curves.plot(*zip(*points, strict=True), marker=".", label=LABELS.get(label, label),
                    lw=2.5 if label == "one_cycle" else 1.2, color="black" if label == "one_cycle" else None)
    curves.axvline(100 * found["target"], color="0.7", ls=":")
    curves.set_yscale("log", base=2)
    ticks = [1, 2, 4, 8, 16, 32]
    curves.set_yticks(ticks, list(map(str, ticks)))
    curves.set_xlabel("target: test accuracy, % (dotted: what the constant rate ends with)")
    curves.set_ylabel("epochs to the target")
    curves.set_title(f"Mean of {found['seeds']} seeds; a line ends where a seed misses the target", fontsize=9)
    curves.legend(fontsize=8)
    rows = {LABELS.get(label, label): of["ratio to 1cycle"] for label, of in found["schedules"].items()
            if label != "one_cycle"}
    notes = {LABELS.get(label, label): f", {of['never']} never" for label, of in found["schedules"].items()
             if of["never"]}
    forest(lines, rows, at=1.0, form="{:.2f}", notes=notes)
    lines.set_xscale("log")
    ticks = [0.5, 1, 2, 4, 8]
    lines.set_xticks(ticks, list(map(str, ticks)))
    lines.minorticks_off()
    lines.set_xlabel("epochs ÷ 1cycle's")
    lines.set_title(f"Epochs to {100 * found['target']:.1f} %: ratio to 1cycle, 95 % interval", fontsize=9)
    return figure


def momentum(results: Results, found: Numbers) -> Figure:
    """Part 5."""
    figure, (curves, lines) = _figure(11, 3.4, 2, width_ratios=[1, 1])
    for arm in MOMENTA:
        of = found["arms"][arm]["by rate"]
        curves.plot([float(lr) for lr in of], list(of.values()), marker="o", ms=4, label=arm,
                    lw=2.5 if "to" in arm else 1.2)
    seen = [loss for arm in MOMENTA for loss in found["arms"][arm]["by rate"].values()]
    curves.set_ylim(0.95 * min(seen), 1.3 * min(seen))
    curves.set_xscale("log")
    curves.set_xlabel("peak learning rate")
    curves.set_ylabel("test loss")
    curves.set_title(f"Mean over {found['seeds']} seeds (up to {max(seen):.0f} at the largest rate)", fontsize=9)
    curves.legend(fontsize=8, title="momentum", title_fontsize=8)
    rows = {arm: found["arms"][arm]["loss difference"] for arm in MOMENTA if arm != "0.95 to 0.85"}
    rows["best constant"] = found["best constant"]["loss difference"]
    forest(lines, rows, form="{:+.4f}")
    lines.set_xlabel("test loss more than with 0.95 to 0.85")
    lines.set_title("At each one's own rate: paired differences, 95 % interval", fontsize=9)
    return figure


def regret(results: Results, found: Numbers) -> Figure:
    """Part 7."""
    figure, axes = _figure(6.2 * len(found), 4.6, len(found))
    for ax, (data, of) in zip(axes, found.items(), strict=True):
        rows = {arm: n["loss difference"] for arm, n in of["schedules"].items() if arm != "1cycle linear_cosine"}
        forest(ax, rows, form="{:+.3f}")
        name = {"fashion": "Fashion-MNIST", "mnist": "MNIST"}[data]
        loss = of["schedules"]["1cycle linear_cosine"]["loss"]["mean"]
        ax.set_title(f"{name}: test loss minus that of minifast's default ({loss:.3f})", fontsize=9)
        ax.tick_params(axis="y", labelsize=8)
    return figure


def article(results: Results, found: Numbers) -> Figure:
    """Part 4."""
    figure, axes = _figure(11, 7.4, 2, 2)
    rates, losses, gaps, tests = axes
    lr, epochs, last = ARTICLE_ARMS["long cycle"]
    n = 50 * epochs
    plan = ONE_CYCLE_FORMS["three_phase"](n, lr, (0.95, 0.85), 10, (1 - last) / 2, None)
    x = np.arange(n) / 50
    rates.plot(x, [plan["lr"](i) for i in range(n)], label="learning rate")
    twin = rates.twinx()
    twin.plot(x, [plan["mom"](i) for i in range(n)], color="tab:orange")
    twin.set_ylabel("momentum (orange)")
    rates.set_ylabel("learning rate (blue)")
    rates.set_xlabel("epoch")
    rates.set_title("The long cycle", fontsize=9)
    pairs = done("4", results, experiment="cycle")
    for arm, colour in zip(ARTICLE_ARMS, ("tab:blue", "tab:red", "tab:green"), strict=True):
        runs = [r for row, r in pairs if row["arm"] == arm]
        _band(losses, [r["valid_loss"] for r in runs], color=colour, label=f"{arm}: test")
        _band(losses, [r["fit_loss"] for r in runs], color=colour, ls="--", label="training")
        _band(gaps, [np.subtract(r["valid_loss"], r["fit_loss"]) for r in runs], color=colour, label=arm)
        _, n_epochs, part = ARTICLE_ARMS[arm]
        gaps.axvline(n_epochs * (1 - part), color=colour, ls=":", lw=1.2)
    losses.set_ylabel("loss")
    losses.set_xlabel("epoch")
    losses.set_ylim(0, min(2.5, losses.get_ylim()[1]) * 1.2)    # room for the legend
    losses.legend(fontsize=7, ncol=3, loc="upper center")
    losses.set_title(f"Losses: mean of {found['seeds']} seeds, lowest to highest", fontsize=9)
    gaps.set_ylabel("test loss - training loss")
    gaps.set_xlabel("epoch")
    gaps.legend(fontsize=8)
    gaps.set_title("The generalisation gap; dotted: the annihilation begins", fontsize=9)
    for wd in WDS:
        curves = [r for row, r in done("4", results, experiment="range", data="fashion") if row["wd"] == wd]
        if curves:
            shortest = min(len(r["lrs"]) for r in curves)
            table = [[np.nan if v is None else v for v in r["losses"][:shortest]] for r in curves]
            _band(tests, table, np.array(curves[0]["lrs"][:shortest]), label=f"weight decay {wd:g}")
    tests.set_xscale("log")
    tests.set_ylim(0.3, 3)
    tests.set_xlabel("learning rate")
    tests.set_ylabel("smoothed loss")
    tests.legend(fontsize=8)
    seeds = found["range"].get("fashion", {}).get("seeds", 0)
    tests.set_title(f"Range tests on Fashion-MNIST, {seeds} seeds", fontsize=9)
    return figure


def keras(results: Results, found: Numbers) -> Figure:
    """Part 6."""
    parts = [name for name in ("spoiled", "versus", "rules") if name in found]
    figure, axes = _figure(11, 2.9 * len(parts), 1, len(parts))
    by_name = dict(zip(parts, axes, strict=True))
    if "spoiled" in found:
        ax = by_name["spoiled"]
        for bs, colour in (("32", "tab:blue"), ("2048", "tab:orange")):
            at: dict[float, list[float]] = {}
            for row, r in done("6", results, experiment="NaN", bs=int(bs)):
                at.setdefault(row["lr"], []).append(r["accuracy"][-1])
                if None in [*r["train_loss"], *r["valid_loss"]]:
                    ax.plot(row["lr"], r["accuracy"][-1], "x", color=colour, ms=9)
            if at:
                ax.plot(list(at), [np.mean(v) for v in at.values()], color=colour, label=f"batches of {int(bs):,}")
                for lr, v in at.items():
                    ax.plot([lr] * len(v), v, ".", color=colour)
        ax.set_xscale("log")
        ax.set_xlabel("constant learning rate (x: the loss became NaN or infinite)")
        ax.set_ylabel("test accuracy")
        seeds = min(of["seeds"] for of in found["spoiled"].values())
        ax.set_title(f"Plain SGD after 2 epochs, n={seeds}", fontsize=9)
        ax.legend(fontsize=8)
    if "versus" in found:
        rows = {f"batches of {int(bs):,}": of["constant"]["loss difference"] for bs, of in found["versus"].items()}
        forest(by_name["versus"], rows)
        by_name["versus"].set_title("Test loss of the constant rate minus 1cycle's, each at its own rate", fontsize=9)
    if "rules" in found:
        rules = dict(sorted(found["rules"].items(), key=lambda item: item[1]["regret"]["mean"]))
        forest(by_name["rules"], {rule: of["regret"] for rule, of in rules.items()}, None, "{:.3f}")
        by_name["rules"].set_xlim(left=0)
        by_name["rules"].set_title("Regret of the rate that each rule reads off a range test", fontsize=9)
    return figure


def smith(results: Results, found: Numbers) -> Figure:
    """Part 2."""
    figure, (ax,) = _figure(8, 3.6, 1)
    for experiment, label, colour, shift in (("style", "here, his style", "tab:blue", -0.2),
                                             ("seeds", "here, batch size 512", "tab:orange", 0.2)):
        of = found.get(experiment, {})
        rows = [(i, of[row]) for i, row in enumerate(PUBLISHED) if row in of]
        errors = [0 if n["low"] is None else 100 * (n["high"] - n["mean"]) for _, n in rows]
        n = " and ".join(sorted({str(n["n"]) for _, n in rows}))
        ax.errorbar([i + shift for i, _ in rows], [100 * n["mean"] for _, n in rows], errors, fmt="o", color=colour,
                    capsize=3, label=f"{label}, n={n}")
    ax.plot([100 * p for p in PUBLISHED.values()], "kx", label="published, mean of 4")
    ax.set_xticks(range(len(PUBLISHED)), [f"{row}\n{SMITH_ROWS[row]['epochs']} epochs" for row in PUBLISHED])
    ax.set_xlim(-0.5, len(PUBLISHED) - 0.5)
    ax.set_ylabel("test accuracy, %")
    ax.set_title("Smith's table: S1 and S2 at a falling rate, S3 to S6 1cycle; bars: 95 % interval", fontsize=9)
    ax.legend(fontsize=8, loc="upper left")
    return figure


PICTURES = {"1": page, "2": smith, "3": race, "4": article, "5": momentum, "6": keras, "7": regret}
