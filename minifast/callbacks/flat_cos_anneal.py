"""A flat learning rate, annealed at the end."""
from __future__ import annotations

from typing import Any

from ..schedules import Curve, Schedule, flat_cosine
from ..stepper import Phases, Stepper, annealing_cos, annealing_linear
from ..utils import check_momenta
from .scheduler import ParamScheduler

__all__ = ["FlatCosAnnealScheduler"]


def FlatCosAnnealScheduler(learn: Any, lr: Any = 4e-3, tot_epochs: int = 1,
                           moms: tuple[float, float] | None = (0.95, 0.999), start_pct: float = 0.72,
                           curve: str = "cosine") -> ParamScheduler:
    """lr is flat, then from `start_pct` of the run on annealed to 0 (`curve`: "cosine" or "linear", else ValueError).

    Momentum is `moms[0]` while lr is flat and `moms[1]` after; `moms=None` leaves it alone.
    """
    if curve not in ("cosine", "linear"):
        raise ValueError(f"curve must be 'cosine' or 'linear', not {curve!r}")
    anneal = annealing_cos if curve == "cosine" else annealing_linear
    curves: dict[str, Curve] = {"lr": flat_cosine(lr, pct_start=start_pct, anneal=anneal)}
    if moms is not None:
        check_momenta(moms, "(while lr is flat, after)")
        first, second = moms

        def mom(n: int, per_epoch: float) -> Schedule:
            flat = int(n * start_pct)
            return Phases([Stepper(first, flat), Stepper(second, n - flat)])
        curves["mom"] = mom
    return ParamScheduler(learn, tot_epochs, **curves)
