"""What the experiments say, in words: `docs/claims.md` with its pictures, and the numbers as `summary.json`."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .analysis import PUBLISHED, Numbers, Results, summary
from .pictures import PICTURES
from .plan import ARTICLE_ARMS, PARTS

__all__ = ["page", "write"]

HEAD = """# The claims about 1cycle, run again

1cycle training is taught by a few pictures and one table, most of them from single runs. Here they are run again with
minifast, with seeds and intervals. Every row, grid and rule was written down before the first run
(`tests/science/PLAN.md`), and no row was changed afterwards. `make science PART=3` runs a part, and goes on with one
that was cut off; the results are in `tests/science/results`, the pictures also in `nbs/06_claims.ipynb`.

In brackets: 95 % t interval and the number of seeds n. A claim **held** if the whole interval is on its side, it **did
not hold** if the whole interval is on the other side, and is **open** otherwise. Rows ran on one CPU thread each, those
of part 2 on a GPU, as each row says. Networks and data are small: a verdict is about these, and no more. A part that is
not finished is judged by the seeds of which all rows are done; the end of the page says what was not run.
"""


def write(results: Mapping[str, Results], status: Sequence[str], kept: Path, docs: Path) -> None:
    """Write the numbers beside the results, and the page and its pictures to `docs`."""
    numbers = summary(results)
    (kept / "summary.json").write_text(json.dumps(numbers, indent=1) + "\n")
    folder = docs / "claims"
    folder.mkdir(parents=True, exist_ok=True)
    for part, found in numbers.items():
        if found:
            PICTURES[part](results[part], found).savefig(folder / f"{part}.png")
    (docs / "claims.md").write_text(page(numbers, status))


def page(numbers: Mapping[str, Numbers], status: Sequence[str]) -> str:
    """The text of the page."""
    written = {part: WORDS[part](found) for part, found in sorted(numbers.items()) if found}
    text = [HEAD, "| | claim | verdict |", "|---|---|---|"]
    text += [f"| {part} | {claim} | {verdict} |" for part, lines in written.items() for claim, verdict, _ in lines]
    for part, lines in written.items():
        text += ["", f"## {part}. {PARTS[part].title}", ""]
        text += [f"*The claim*: {claim}. **{verdict[0].upper()}{verdict[1:]}.** {detail}\n"
                 for claim, verdict, detail in lines]
        text += [f"![{PARTS[part].title}](claims/{part}.png)"]
    return "\n".join([*text, "", "## What was run, and what was not", "", *(f"* {line}" for line in status), ""])


# ---- words for numbers

Line = tuple[str, str, str]     # claim, verdict, detail


def said(found: Numbers, form: str = "{:+.3f}", n: bool = True) -> str:
    """A mean with its interval and n."""
    if found["mean"] is None:
        return "no pair"
    if found["low"] is None:
        return f"{form.format(found['mean'])} (n={found['n']})"
    words = f"{form.format(found['low'])} to {form.format(found['high'])}"
    return f"{form.format(found['mean'])} ({words}{', n=' + str(found['n']) if n else ''})"


def verdict(found: Numbers, at: float = 0.0, above: bool = True) -> str:
    """Whether the interval is above `at` (or below it)."""
    if found["low"] is None:
        return "open"
    low, high = found["low"] > at, found["high"] < at
    return "held" if (low if above else high) else "did not hold" if (high if above else low) else "open"


def few(names: Sequence[str]) -> str:
    """Names in a row: "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


PAGE_SAYS = {"fit_one_cycle 5e-2": "19", "fit 5e-2": "21", "fit 5e-3": "35", "fit 1e-2": "31", "fit 1e-3": "80",
             "fit 1": "1,028", "fit steepest": "35"}


def points(arm: Numbers) -> str:
    """Points of accuracy that an arm loses against 1cycle, in which 20.38 pictures are one."""
    more = arm["errors difference"]["both classes"]["mean"]
    return "no" if more is None else f"{more / 20.38:.1f}"


def fastai_page(found: Numbers) -> list[Line]:
    arms, n, dead = found["arms"], found["seeds"], found["dead"]
    cycle, same, best = (arms[arm] for arm in ("fit_one_cycle 5e-2", "fit 5e-2", "fit 1e-2"))
    table = ["| run, 2 epochs | errors on the page | here, median | more than 1cycle, same seed | worse in | fail |",
             "|---|---:|---:|---|---:|---:|"]
    for arm, of in arms.items():
        difference = of["errors difference"]
        more = "" if of is cycle else said(difference["both classes"], "{:+.1f}")
        table.append(f"| `{arm}` | {PAGE_SAYS.get(arm, '')} | {of['median errors']:g} | {more} | "
                     f"{'' if of is cycle else difference['all']['larger']} | {of['one class']} |")
    return [
        ("1cycle at 5e-2 is 'far better' than constant rates", verdict(best["errors difference"]["both classes"]),
         f"1cycle errs on {cycle['errors']['mean']:.1f} ± {cycle['errors']['sd']:.1f} of 2,038 pictures (mean ± sd, "
         f"n={n}). What remains of 'far better', for which the page shows a difference of two pictures: "
         f"{points(same)} points of accuracy against the same rate, "
         f"{points(best)} against the best constant one (1e-2), and "
         f"that {cycle['one class'] or 'none'} of its networks fails. A network that fails predicts one class only; "
         "the differences are over the seeds in which neither network does. Planned was to leave out only the dead "
         "ones (loss ln 2); that a network can be half dead was seen later. By the plan the difference to the same "
         f"rate is {said(same['errors difference']['alive'], '{:+.1f}')}.\n\n" + "\n".join(table)),
        ("constant rates lose also in the validation loss", verdict(best["loss difference"]["both classes"]),
         "The best of them, 1e-2, is worse by "
         f"{said(best['loss difference']['both classes'], '{:+.4f}')}."),
        ("at lr 1 the network is dead: loss ln 2, 1,010 of 2,038 right",
         f"held in {arms['fit 1']['dead']} of {n} seeds",
         f"Over all runs {dead['runs']} are dead, with {', '.join(f'{e:,}' for e in dead['errors'])} errors and a "
         f"loss at most {dead['furthest from ln 2']:.0e} from ln 2. Some at the finder's suggestions fail too; `basin` "
         "means the peak of a 1cycle, not a constant rate."),
    ]


def fast(found: Numbers) -> list[Line]:
    of, names = found["schedules"], {"warm_cosine": "warm-up and cosine"}
    rest = "; ".join(f"{names.get(label, label)} {said(n['ratio to 1cycle'], '{:.2f}', n=False)}"
                     + (f", never reached in {n['never']}" if n["never"] else "")
                     for label, n in of.items() if label not in ("one_cycle", "constant"))
    constant, cycle = of["constant"], of["one_cycle"]
    edges = [names.get(label, label) for label, c in found["chosen"].items() if c["edge"]]
    return [
        ("1cycle needs fewer epochs than a constant rate", verdict(constant["ratio to 1cycle"], 1),
         f"To {100 * found['target']:.1f} %, what the constant rate ends with after 32 epochs, 1cycle takes "
         f"{said(cycle['epochs'], '{:.1f}')} epochs and the constant rate {said(constant['epochs'], '{:.1f}')}: "
         f"a ratio of {said(constant['ratio to 1cycle'], '{:.2f}')}"
         + (f"; {constant['never']} seeds of the constant rate never got there." if constant["never"] else ".")),
        ("up to ten times fewer", "did not hold here" if constant["ratio to 1cycle"]["mean"] < 10 else "held here",
         f"The other schedules that anneal are the fairer comparison; their epochs over 1cycle's: {rest}."
         + (f" The best rate was at the edge of the grid for: {', '.join(edges)}." if edges else "")),
    ]


def cyclical(found: Numbers) -> list[Line]:
    wrong, best = found["arms"]["0.85 to 0.95"], found["best constant"]
    return [
        ("cyclical momentum is as good as the best constant momentum, or better",
         {"held": "held: better", "open": "held: no difference seen", "did not hold": "did not hold"}[
             verdict(best["loss difference"])],
         f"The best constant momentum (most often {best['which'].removeprefix('always ')}) has a test loss of "
         f"{said(best['loss difference'], '{:+.4f}')} against momentum 0.95 to 0.85."),
        ("the wrong way round is worse", verdict(wrong["loss difference"]),
         f"0.85 to 0.95 has a test loss of {said(wrong['loss difference'], '{:+.4f}')} against 0.95 to 0.85, "
         "each at its own rate."),
    ]


def compared(found: Numbers) -> list[Line]:
    lines = []
    for data, name in (("fashion", "Fashion-MNIST"), ("mnist", "MNIST")):
        if data not in found:
            continue
        of = found[data]["schedules"]
        others = {k: v for k, v in of.items() if not k.startswith("1cycle")}
        rival = min(others, key=lambda k: others[k]["loss"]["mean"])
        form = min((k for k in of if k.startswith("1cycle")), key=lambda k: of[k]["loss"]["mean"])
        worse = [k for k, v in others.items() if v["loss difference"]["low"] > 0]
        better = [k for k, v in of.items() if v["loss difference"]["high"] < 0]
        edges = [k for k, v in of.items() if v["edge"]]
        lines.append((
            f"1cycle is better than the other schedules at equal length ({name})",
            "held" if len(worse) == len(others) else
            f"held against {few(worse)} only" if worse else "not shown",
            f"Test losses against minifast's default form: the best of the others, {rival}, "
            f"{said(others[rival]['loss difference'])}; the best form of 1cycle, {form.removeprefix('1cycle ')}, "
            f"{said(of[form]['loss difference'])}; better than the default by the interval: "
            f"{', '.join(better) or 'none'} (of 17 comparisons, so one may be chance)."
            + (f" Best rate at the edge of the grid: {', '.join(edges)}." if edges else "")))
    return lines


def pictures_of_the_article(found: Numbers) -> list[Line]:
    lines: list[Line] = []
    if found["arms"]:
        long, annihilation, short = (found["arms"][arm] for arm in ARTICLE_ARMS)
        share = long["gap opened by annihilation"]["mean"] / long["gap at the end"]["mean"]
        lines = [
            ("the gap between test and training loss stays closed at high rates and opens in the annihilation",
             verdict(long["gap opened by annihilation"]) if share > 0.5 else "did not hold",
             f"When the annihilation of the long cycle begins, in its last 14 %, the gap is already "
             f"{long['gap before annihilation']['mean']:.3f}; from there it grows by "
             f"{said(long['gap opened by annihilation'])}, which is {share:.0%} of the gap at the end. It opens from "
             "the first epochs on, also where the rate is highest. (Planned was to judge by that growth alone; that it "
             "is so small a part of the gap was seen later.)"),
            ("a long annihilation over-fits", verdict(annihilation["loss difference"]),
             f"With half of the run as annihilation the test loss ends at {said(annihilation['loss difference'])} "
             f"against the long cycle, the accuracy at {said(annihilation['accuracy difference'], '{:+.4f}')}."),
            ("a short cycle at a high rate comes close to a long one",
             "measured, not judged",
             f"Half as many epochs at three times the rate: test loss {said(short['loss difference'])}, accuracy "
             f"{said(short['accuracy difference'], '{:+.4f}')} against the long cycle."),
        ]
    for data, name in (("fashion", "Fashion-MNIST"), ("mnist", "MNIST")):
        if data in found["range"]:
            of = found["range"][data]["ratio of 1e-4 to 1e-2"]
            lines.append((f"a smaller weight decay bears larger rates in the range test ({name})", verdict(of, 1),
                          f"The loss shoots up at {said(of, '{:.2f}')} times the rate with decay 1e-4 as with 1e-2."))
    return lines


def keras_article(found: Numbers) -> list[Line]:
    lines: list[Line] = []
    if "spoiled" in found:
        def at(rates: list[float | None]) -> str:
            return ", ".join("never" if lr is None else f"{lr:g}" for lr in rates)
        measured = "; ".join(
            f"batches of {int(bs):,} (n={of['seeds']}): NaN or infinite from {at(of['NaN from'])}, "
            f"nothing learnt (accuracy at most 0.11) from {at(of['nothing learnt from'])}"
            for bs, of in found["spoiled"].items())
        lines.append(("large batches bear larger rates; too large a rate gives NaN", "measured, not judged",
                      f"The lowest such rates of the grid, by seed: {measured}."))
    for bs, of in found.get("versus", {}).items():
        lines.append((
            f"1cycle is better than a constant rate (plain SGD, batches of {int(bs):,})",
            verdict(of["constant"]["loss difference"]),
            f"The constant rate has a test loss of {said(of['constant']['loss difference'])}, an accuracy of "
            f"{said(of['constant']['accuracy difference'], '{:+.4f}')} against Géron's form of 1cycle."))
    if "rules" in found:
        of = found["rules"]["a tenth of where it shoots up"]
        ranked = sorted(found["rules"], key=lambda rule: found["rules"][rule]["regret"]["mean"])
        lines.append((
            "a tenth of where the loss shoots up is as good a rate as any rule's",
            verdict(of["minus basin"], above=False),
            f"Its regret is {said(of['regret'], '{:.3f}')} over the cases of the finder's comparison, "
            f"{said(of['minus basin'])} more than minifast's `basin` (whose constants were chosen on half of these "
            f"cases), and {said(of['minus minimum'])} more than `minimum`. From the best on: {', '.join(ranked)}."))
    return lines


def percent(of: Numbers, form: str = "{:.2f}") -> str:
    """A mean of shares with its interval, in percent."""
    return said({k: v if k in ("n", "failed") or v is None else 100 * v for k, v in of.items()}, form)


def smith_table(found: Numbers) -> list[Line]:
    lines: list[Line] = []
    table = ["| row | published (4 runs) | here, his style | here, batch size 512 |", "|---|---:|---|---|"]
    for row, published in PUBLISHED.items():
        cells = [percent(found[e][row]) if row in found.get(e, {}) else "" for e in ("style", "seeds")]
        table.append(f"| {row} | {100 * published:.2f} | {cells[0]} | {cells[1]} |")
    for experiment, name in (("seeds", "batch size 512"), ("style", "his style")):
        if difference := found.get(experiment, {}).get("S3 minus S1"):
            claim = f"12 epochs of 1cycle (S3) beat 85 at a falling rate (S1, {name})"
            lines.append((claim, large_enough(difference),
                          "Test accuracy, S3 minus S1 of the same seed, in percentage points: "
                          f"{percent(difference, '{:+.2f}')}; published: +0.22. By the plan it held if the mean is "
                          "above 0.1 and the interval above 0."
                          + ("\n\n" + "\n".join(table) if experiment == "seeds" else "")))
    if difference := found.get("style", {}).get("S6 minus S3"):
        lines.append(("85 epochs of 1cycle (S6) are at least as good as 12 (S3)", verdict(difference),
                      f"S6 minus S3, in percentage points: {percent(difference, '{:+.2f}')}; published: +0.10."))
    if conventions := {arm: of for arm, of in found.get("conventions", {}).items() if "minus" not in arm}:
        lines.append(("the convention of momentum", "measured, not judged",
                      "S3 with other conventions, test accuracy in %: " + "; ".join(
                          f"{arm.removeprefix('S3 xavier ')} {percent(of)}"
                          + f", and {of['failed']} that failed" * bool(of["failed"])
                          for arm, of in conventions.items())
                      + ". Caffe's SGD is the S3 of the table. A network that fails predicts one class."))
    return lines


def large_enough(difference: Numbers) -> str:
    """The plan's rule for part 2: a mean of more than 0.1 points, and an interval without 0."""
    if difference["low"] is None:
        return "open"
    held = difference["mean"] > 0.001 and difference["low"] > 0
    return "held" if held else "did not hold by the plan's rule" if difference["mean"] <= 0.001 else "open"


WORDS: dict[str, Any] = {"1": fastai_page, "2": smith_table, "3": fast, "4": pictures_of_the_article, "5": cyclical,
                         "6": keras_article, "7": compared}
