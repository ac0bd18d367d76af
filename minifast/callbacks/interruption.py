"""Ctrl-C."""
from __future__ import annotations

import signal
import threading
from typing import Any

from ..callback import LearnerCallback
from ..order import Order

__all__ = ["Interruption"]


class Interruption(LearnerCallback):
    """Ctrl-C ends a fit after the batch at hand, by a KeyboardInterrupt from there; a second Ctrl-C acts at once.

    Python's own handler of the signal is replaced for the length of the fit; where somebody has set another one, or in
    a thread, nothing is.
    """

    _order = Order.INTERRUPTION
    role = "process"

    def __init__(self, learn: Any) -> None:
        super().__init__(learn)
        self.listening = False

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a run that goes on has not been interrupted yet."""
        return {}

    def on_train_begin(self) -> None:
        self.learn.interrupted = False
        self.listening = (threading.current_thread() is threading.main_thread()
                          and signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        if self.listening:
            signal.signal(signal.SIGINT, self._handle)

    def _handle(self, *args: Any) -> None:
        self.learn.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_batch_end(self) -> None:
        if self.learn.interrupted:
            raise KeyboardInterrupt

    def on_epoch_end(self) -> None:
        self.on_batch_end()

    def on_train_end(self, exception: BaseException | None) -> None:
        if self.listening:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.listening = False
        if self.learn.interrupted and exception is None:
            raise KeyboardInterrupt
