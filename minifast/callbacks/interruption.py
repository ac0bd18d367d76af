"""Ctrl-C, and a scheduler that wants the machine back."""
from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

from .. import distributed as processes
from ..callback import LearnerCallback
from ..failures import another_ended
from ..order import Order

if TYPE_CHECKING:
    from ..learner import Learner

__all__ = ["Interruption", "Preempted"]

# the signals that end a fit, by the handler that each has where no one has set another one
DEFAULTS: dict[str, Any] = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGUSR1": signal.SIG_DFL}


class Preempted(SystemExit):
    """Ends a fit after SIGTERM or SIGUSR1. Left alone, it ends the program with exit status 143, which a scheduler can
    take as "start this job again"; `except Exception` does not catch it.

    `signal_name`: which signal it was.

    >>> error = Preempted("SIGTERM")
    >>> error.code, error.signal_name
    (143, 'SIGTERM')
    """

    def __init__(self, signal_name: str) -> None:
        super().__init__(143)   # 128 + SIGTERM, as a shell reports it; for both, so that a job tests one number
        self.signal_name = signal_name


class Interruption(LearnerCallback):
    """Ctrl-C ends a fit after the batch at hand, by a KeyboardInterrupt from there; a second Ctrl-C acts at once.
    SIGTERM and SIGUSR1, which schedulers send before they take a machine away, end it by `Preempted`.

    `learn`: the learner of the fit; it makes one of these itself. The signals' default handlers are replaced for the
    length of the fit. Of several processes all end after the same batch. A handler that someone has set, before the fit
    or during it, is left alone; in a thread, nothing is replaced.

    >>> class CtrlC(Callback):
    ...     def on_batch_end(self, iteration): signal.raise_signal(signal.SIGINT) if iteration == 3 else None
    >>> import signal
    >>> learn = fake_learner()
    >>> try: learn.fit(9, callbacks=CtrlC())
    ... except KeyboardInterrupt: print(learn.stopped)
    by KeyboardInterrupt in epoch 1, batch 1
    """

    _order = Order.INTERRUPTION
    role = "process"

    def __init__(self, learn: Learner) -> None:
        super().__init__(learn)
        self.received: int | None = None        # the signal that ends the run
        self.heard: int | None = None           # of several processes: one that the others do not know of yet
        self.replaced: dict[int, Any] = {}      # the handlers that it has put its own in place of

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a run that goes on has not been interrupted yet."""
        return {}

    def on_train_begin(self) -> None:
        self.learn.interrupted, self.received, self.heard = False, None, None
        processes.warn_if_alone(self.learn)
        if threading.current_thread() is threading.main_thread():
            for name, default in DEFAULTS.items():
                number = getattr(signal, name, None)    # Windows has no SIGUSR1
                if number is not None and signal.getsignal(number) is default:
                    self.replaced[number] = signal.signal(number, self._receive)

    def take(self, number: int) -> None:
        """End the run after the batch at hand, because of this signal."""
        self.learn.interrupted, self.received = True, number

    def _receive(self, number: int, frame: Any) -> None:
        if not processes.together(self.learn):
            self.take(number)
        elif another_ended():     # there will be no end of a batch
            raise KeyboardInterrupt if number == signal.SIGINT else Preempted(signal.Signals(number).name)
        else:
            self.heard = number     # they all end after the same batch
        if number == signal.SIGINT:     # of the others a scheduler may send several: it has SIGKILL to act at once
            signal.signal(number, self.replaced[number])

    def on_batch_end(self) -> None:
        if self.learn.interrupted:
            self._end_the_run()

    def on_epoch_end(self) -> None:
        self._end_the_run()

    def on_train_end(self, exception: BaseException | None) -> None:
        for number, before in self.replaced.items():
            if signal.getsignal(number) == self._receive:   # else someone has set another one since
                signal.signal(number, before)
        self.replaced, self.heard = {}, None
        # a signal to all processes of a group ends loader workers at once, and torch says so by a RuntimeError
        if exception is None or isinstance(exception, RuntimeError) and "DataLoader worker" in str(exception):
            self._end_the_run()

    def _end_the_run(self) -> None:
        if self.received is not None and self.received != signal.SIGINT:
            raise Preempted(signal.Signals(self.received).name)
        if self.learn.interrupted:
            raise KeyboardInterrupt
