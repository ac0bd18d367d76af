"""The other forms of the 1cycle policy, as papers and libraries have them; `one_cycle.py` has the default one.

A form is a function of the number of updates `n`, `lr_max` (a number, or an array with one for each layer group),
`moms` (at the ends, at the peak), `div_factor`, `pct_start` and `final_div`. A cycle starts at `lr_max / div_factor`,
and its lowest learning rate is `lr_max / final_div`, where None is the form's own. What a form takes beyond
these is given with `partial`: `OneCycleScheduler(learn, 0.1, form=partial(three_phase, pct_last=0.1))`.

Where none is given, each form has the values of its source, which its signature shows: most have moms (0.95, 0.85),
div_factor 25 and pct_start 0.3; `keras` has div_factor 10 and leaves momentum unchanged.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from .checks import check_momenta, did_you_mean, number, positive_float
from .schedules import Plan
from .stepper import Annealing, Phases, Stepper, annealing_cos, annealing_linear, annealing_no

__all__ = ["DEFAULTS", "Form", "OF_FORM", "OTHER_FORMS", "arguments", "draw", "fastai", "find_form", "keras", "pytorch",
           "smith", "three_phase"]

Form = Callable[..., Plan]
Moms = tuple[float, float]
DEFAULTS = ((0.95, 0.85), 25.0, 0.3, None)     # moms, div_factor, pct_start, final_div


class _OfForm:
    """In the place of an argument that was not given: the form's own value."""

    def __repr__(self) -> str:
        return "the form's own"


OF_FORM: Any = _OfForm()


def fastai(n: int, lr_max: Any, moms: Moms = (0.95, 0.85), div_factor: float = 25.0, pct_start: float = 0.3,
           final_div: float | None = None) -> Plan:
    """Both phases as half a cosine, lr down to `lr_max / final_div`, by default `lr_max / (div_factor * 1e4)`.

    Source: fastai 1.0.61 as released (its documentation describes another form, which is minifast's default).
    """
    up, low, end = int(n * pct_start), lr_max / div_factor, lr_max / (final_div or div_factor * 1e4)
    return {"lr": _through([low, lr_max, end], [up, n - up], annealing_cos),
            "mom": _through([moms[0], moms[1], moms[0]], [up, n - up], annealing_cos)}


def three_phase(n: int, lr_max: Any, moms: Moms = (0.95, 0.85), div_factor: float = 25.0, pct_start: float = 0.3,
                final_div: float | None = None,
                pct_last: float | None = None) -> Plan:
    """In straight lines up, down to the start, and on to `lr_max / final_div`, by default a hundredth of the start.

    Momentum mirrors the first two phases and stays at its maximum in the last. `pct_last`: the last phase's part of the
    run; by default the way down is as long as the way up, and the last phase has the rest. ValueError if the phases
    are longer than the run.

    Source: L. Smith and N. Topin, "Super-convergence" (arXiv 1708.07120), and arXiv 1803.09820 in its own words.
    """
    up = int(n * pct_start)
    down = up if pct_last is None else n - up - int(n * pct_last)
    if down < 0 or up + down > n:
        raise ValueError(f"pct_start={pct_start} and pct_last={pct_last} leave no room: without pct_last the way down "
                         "is as long as the way up, pct_start of the run; with it, both together must be at most 1")
    return _three_lines([up, down, n - up - down], lr_max, moms, div_factor, final_div or div_factor * 100)


def keras(n: int, lr_max: Any, moms: Moms | None = None, div_factor: float = 10.0, pct_start: float | None = None,
          final_div: float | None = None) -> Plan:
    """As `three_phase`, but the last phase is a tenth of the run and ends, by default, at a thousandth of the start.

    `pct_start` plays no part, and the scheduler refuses it: up and down take half each of what the last phase leaves.
    By default it starts at `lr_max / 10` and leaves momentum unchanged.

    Source: the Keras callback in A. Géron, "Hands-On Machine Learning" (2nd edition), chapter 11.
    """
    up = (n - (n // 10 + 1)) // 2
    return _three_lines([up, up, n - 2 * up], lr_max, moms or (0.0, 0.0), div_factor, final_div or div_factor * 1000)


def smith(n: int, lr_max: Any, moms: Moms = (0.95, 0.85), div_factor: float = 25.0, pct_start: float = 0.3,
          final_div: float | None = None) -> Plan:
    """What the runs of arXiv 1803.09820 did: up, then straight towards 0 in as many updates, but never below
    `lr_max / final_div`, by default a thousandth of the start, which is held. Momentum cycles on, at half the swing.

    Source: the logs released with the paper (github.com/lnsmith54/hyperParam1); every figure they print comes out.
    """
    step = max(1, int(n * pct_start))
    floor = lr_max / (final_div or div_factor * 1000)
    at_least = np.maximum if isinstance(lr_max, np.ndarray) else max

    def falling(start: Any, end: Any, pct: float) -> Any:
        return at_least(start * (1 - pct), end)

    swings = [(moms[0] - moms[1]) * 0.5**cycle for cycle in range(1 + n // (2 * step))]
    return {"lr": Phases([Stepper((lr_max / div_factor, lr_max), step), Stepper((lr_max, floor), step, falling),
                          Stepper(floor, max(0, n - 2 * step))]),
            "mom": Phases([Stepper(way, step) for swing in swings
                           for way in ((moms[0], moms[0] - swing), (moms[0] - swing, moms[0]))])}


def pytorch(n: int, lr_max: Any, moms: Moms = (0.95, 0.85), div_factor: float = 25.0, pct_start: float = 0.3,
            final_div: float | None = None,
            anneal: Annealing = annealing_cos, phases: int = 2) -> Plan:
    """`torch.optim.lr_scheduler.OneCycleLR`; with `phases=3` its `three_phase=True`.

    Its phases end at fractions of an update, the first after `n * pct_start - 1`, so that it may be that none runs at
    exactly `lr_max`. The last update runs at the lowest lr, `lr_max / final_div`, by default with `div_factor * 1e4`
    (torch's `final_div_factor` is `final_div / div_factor`).
    """
    up, low, end = pct_start * n - 1, lr_max / div_factor, lr_max / (final_div or div_factor * 1e4)
    high, peak = moms
    if phases == 2:
        ends, lrs, at = [up, n - 1], [low, lr_max, end], [high, peak, high]
    else:
        ends, lrs, at = [up, 2 * pct_start * n - 2, n - 1], [low, lr_max, low, end], [high, peak, high, high]
    lengths = [b - a for a, b in zip([0.0, *ends[:-1]], ends, strict=True)]
    return {"lr": _through(lrs, lengths, anneal), "mom": _through(at, lengths, anneal)}


OTHER_FORMS: dict[str, Form] = {
    "fastai": fastai,
    "three_phase": three_phase,
    "smith": smith,
    "keras": keras,
    "pytorch": pytorch,
    "pytorch_linear": partial(pytorch, anneal=annealing_linear),
    "pytorch_three_phase": partial(pytorch, phases=3),
    "pytorch_three_phase_linear": partial(pytorch, anneal=annealing_linear, phases=3),
}


def find_form(form: str | Form, forms: Mapping[str, Form]) -> Form:
    """The form of that name, or `form` itself if it is a function; ValueError with a suggestion for an unknown name."""
    if callable(form):
        return form
    if not isinstance(form, str) or form not in forms:
        raise ValueError(f"there is no form {form!r} of the 1cycle policy; there are {', '.join(forms)}."
                         + did_you_mean(form, forms))
    return forms[form]


def arguments(form: Form, moms: Any = OF_FORM, div_factor: Any = OF_FORM, pct_start: Any = OF_FORM,
              final_div: Any = None) -> tuple[Moms | None, float, float | None, float | None]:
    """The arguments of a form: as given, else the form's own, else `DEFAULTS`; what is `OF_FORM` is not given.

    TypeError or ValueError for values that cannot be, and for a `pct_start` that the form does not use.

    >>> arguments(keras, div_factor=20.0)
    (None, 20.0, None, None)
    """
    own = [p.default for p in list(inspect.signature(form).parameters.values())[2:6]]
    own += [inspect.Parameter.empty] * (4 - len(own))
    usual = [default if d is inspect.Parameter.empty else d for d, default in zip(own, DEFAULTS, strict=True)]
    if pct_start is not OF_FORM:
        if usual[2] is None:
            raise ValueError(f"pct_start={pct_start} has no effect: this form has rising and falling parts of its own "
                             "length, so leave it out")
        if not 0 < number("pct_start", pct_start) < 1:
            raise ValueError(f"pct_start is the rising part of the cycle, above 0 and below 1, not {pct_start}")
    found: list[Any] = [of_form if value is OF_FORM else value
             for value, of_form in zip((moms, div_factor, pct_start), usual, strict=False)]
    if found[0] is not None:
        check_momenta(found[0], "(at the ends, at the peak)")
    final_div = usual[3] if final_div is None else final_div
    return (found[0], positive_float("div_factor", found[1]), found[2],
            None if final_div is None else positive_float("final_div", final_div))


def draw(form: Form, n: int, lr_max: Any, *values: Any) -> Plan:
    """The form's curves, with what `arguments` gave, by whatever names the form has for them."""
    names = list(inspect.signature(form).parameters)[2:6]
    if len(names) < 4:
        return form(n, lr_max, *values)
    return form(n, lr_max, **dict(zip(names, values, strict=True)))


def _through(points: Sequence[Any], lengths: Sequence[float], func: Annealing) -> Phases:
    """From each of the points to the next, in as many updates as `lengths` says (torch's may be fractions)."""
    pairs = zip(points[:-1], points[1:], lengths, strict=True)
    # a straight line from a value to itself would waver in its last digit
    return Phases([Stepper((a, b), n, annealing_no if a is b else func) for a, b, n in pairs])  # type: ignore[arg-type]


def _three_lines(lengths: Sequence[int], lr_max: Any, moms: Moms, div_factor: float, final_div: float) -> Plan:
    low = lr_max / div_factor
    return {"lr": _through([low, lr_max, low, lr_max / final_div], lengths, annealing_linear),
            "mom": _through([moms[0], moms[1], moms[0], moms[0]], lengths, annealing_linear)}
