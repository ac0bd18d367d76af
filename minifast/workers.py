"""Worker processes that make batches of a dataset's items, and live as long as what owns them."""
from __future__ import annotations

import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

__all__ = ["Workers", "exchange_kept"]

Rows = list[tuple[int, int]]    # (index, seed) of each sample of a batch
Collate = Callable[[list[Any]], Any]


class Workers:
    """Processes that fetch a dataset's items and collate them, started for the first pass and kept for the next ones.

    Starting them takes a second or more each where they are not forked, for every pass if they are not kept. A pass
    that begins while another one goes on gets processes of its own. They are started again when an attribute of the
    dataset is another object than before, or when a pass has failed. A copy of this object has none yet.

    >>> [len(y) for x, y in ItemLoader([(0.0, 1)] * 5, bs=2, num_workers=1, keep_workers=True)]
    [2, 2, 1]
    """

    def __init__(self) -> None:
        self._dl: DataLoader[Any] | None = None
        self._made_for: list[Any] = []
        self._order = _Order()
        self._busy = False

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Workers.__init__(self)

    def batches(self, dataset: Any, rows: Iterable[Rows], n: int, collate_fn: Collate | None,
                keep: bool) -> Iterator[Any]:
        """The batches of these samples, in order.

        dataset: gives the items of a batch by `__getitems__`, from a list of (index, seed); its own `dataset` is the
            one whose attributes are compared.
        rows: the (index, seed) of each sample, a list for each batch.
        n: how many processes; 0: this one.
        collate_fn: makes a batch of a list of items; None: torch's.
        keep: whether the processes are kept. A dataset that changes within its attributes needs new ones.
        """
        return self._kept(dataset, rows, n, collate_fn) if keep and n else iter(_loader(dataset, rows, n, collate_fn))

    def _kept(self, dataset: Any, rows: Iterable[Rows], n: int, collate_fn: Collate | None) -> Iterator[Any]:
        if self._busy:
            yield from _loader(dataset, rows, n, collate_fn)
            return
        self._busy = True
        try:
            attributes = getattr(dataset.dataset, "__dict__", {})
            made_for = [dataset.dataset, n, collate_fn, *attributes.keys(), *attributes.values()]
            if self._dl is None or not _same(made_for, self._made_for):
                self._made_for, self._dl = made_for, _loader(dataset, self._order, n, collate_fn, keep=True)
            self._order.rows = rows
            yield from _started(self._dl, n)
        except Exception:
            self._dl = None     # one of them may have died
            raise
        finally:
            self._busy = False


def exchange_kept(loader: Any, workers: Workers | None = None) -> Workers:
    """Take its worker processes from an `ItemLoader`, and give it others (None: its next pass starts some)."""
    before: Workers = loader._workers
    loader._workers = workers or Workers()
    return before


def _loader(dataset: Any, rows: Iterable[Rows], n: int, collate_fn: Collate | None,
            keep: bool = False) -> DataLoader[Any]:
    return DataLoader(dataset, batch_sampler=rows, num_workers=n, collate_fn=collate_fn, generator=torch.Generator(),
                      persistent_workers=keep, worker_init_fn=_leave_ctrl_c_to_the_parent if keep else None,
                      pin_memory=keep and torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


class _Order:
    """The batches of the pass that begins now: a loader takes them when it is iterated over."""

    rows: Iterable[Rows] = ()

    def __iter__(self) -> Iterator[Rows]:
        return iter(self.rows)


def _same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _started(dl: DataLoader[Any], n: int) -> Iterator[Any]:
    try:
        return iter(dl)
    except (pickle.PicklingError, AttributeError, TypeError) as e:
        if "pickle" not in str(e):
            raise
        raise RuntimeError(f"num_workers={n} starts processes that do not share this one's memory, so what they use "
                           f"must be importable: {e}. Define transforms at the top of a module, or use num_workers=0"
                           ) from e


def _leave_ctrl_c_to_the_parent(worker: int) -> None:
    """It ends a batch and saves its run first, and may go on: the processes must be there then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
