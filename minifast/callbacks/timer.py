"""Where the time of an epoch goes."""
from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..callback import LearnerCallback
from ..order import Order
from ..progress import say

if TYPE_CHECKING:
    from ..learner import Learner

__all__ = ["Timer"]

PARTS = ("data", "forward", "loss", "backward", "step", "validation", "rest")


class Timer(LearnerCallback):
    """Where each epoch's seconds went: `times`, a dict an epoch, and `report()`, which is also printed when a fit ends.

    data: waiting for training batches. forward: the model. loss, backward: those, with what callbacks did just before.
    step: the optimizer's step without our weight decay. validation: all of it. rest: callbacks, the loop, the bars.
    Nothing waits for a GPU: what is measured there is how long it took to hand over the work, and the waiting shows
    up wherever a value is read, for the most part in `rest` and `validation`.

    learn: the learner whose fits are timed.

    >>> learn = fake_learner(callback_fns=Timer)
    >>> learn.fit(2)
    >>> list(learn.timer.times[1])
    ['data', 'forward', 'loss', 'backward', 'step', 'validation', 'rest']
    """

    _order = Order.TIMER
    role = "watching"

    def __init__(self, learn: Learner) -> None:
        super().__init__(learn)
        self.times: list[dict[str, float]] = []
        self.handles: list[Any] = []
        self.training = True
        self._start()

    def on_train_begin(self, pbar: Any) -> None:
        self.times = []
        self._start()
        track = pbar.track
        pbar.track = lambda *args, **kwargs: self._waits(track(*args, **kwargs))  # one run's own, nothing to restore
        model, opt = self.learn.model, self.learn.opt.opt
        self.handles = [model.register_forward_pre_hook(self._begin), model.register_forward_hook(self._end_forward),
                        opt.register_step_pre_hook(self._begin), opt.register_step_post_hook(self._end_step)]

    def on_batch_begin(self, train: bool) -> None:
        if self.training and not train:
            self.validation_start = time.perf_counter()
        self.training = train

    def on_loss_begin(self) -> None:
        self.mark = time.perf_counter()

    def on_backward_begin(self) -> None:
        self._add("loss")

    def on_backward_end(self) -> None:
        self._add("backward")

    def on_epoch_end(self) -> None:
        now = time.perf_counter()
        if not self.training:
            self.spent["validation"] = now - self.validation_start
        self.spent["rest"] = now - self.epoch_start - sum(self.spent.values())
        self.times.append(self.spent)
        self._start()   # what the others do at the end of this epoch is part of the next one's rest

    def on_train_end(self, pbar: Any) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []
        if self.times and pbar.face != "silent":
            say(self.report())

    def state_dict(self) -> dict[str, Any]:
        """The epochs that have been timed; clocks mean nothing in another process."""
        return {"times": self.times}

    def report(self) -> str:
        """One line: the seconds of the mean epoch, and each part's share. ValueError before an epoch has been timed."""
        if not self.times:
            raise ValueError("no epoch has been timed yet")
        means = {part: sum(t[part] for t in self.times) / len(self.times) for part in PARTS}
        total = sum(means.values())
        shares = ", ".join(f"{part} {100 * t / total:.0f} %" for part, t in means.items())
        return f"{total:.2f} s an epoch: {shares}"

    def _start(self) -> None:
        self.training = True
        self.epoch_start = self.validation_start = self.mark = time.perf_counter()
        self.spent = dict.fromkeys(PARTS, 0.0)

    def _waits(self, batches: Any) -> Iterator[Any]:
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            if self.training:
                self.spent["data"] += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def _begin(self, *_: Any) -> None:
        self.mark = time.perf_counter()

    def _end_forward(self, *_: Any) -> None:
        self._add("forward")

    def _end_step(self, *_: Any) -> None:
        self._add("step")

    def _add(self, part: str) -> None:
        now = time.perf_counter()
        if self.training:
            self.spent[part] += now - self.mark
        self.mark = now
