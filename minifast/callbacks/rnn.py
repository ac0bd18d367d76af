"""Training recurrent language models: state and regularisation."""
from __future__ import annotations

from typing import Any

from torch import Tensor

from ..callback import LearnerCallback
from ..checks import positive_float
from ..state import Changes

__all__ = ["RNNTrainer"]


class RNNTrainer(LearnerCallback):
    """Resets a model's hidden state between passes over the data, and regularises its activations.

    Where the model returns (output, raw, dropped), the hidden states (batch, time, size) of its layers (or of the last
    one alone) before and after dropout, only the output goes on to the loss, and what is differentiated (not what is
    recorded) gains `alpha` · mean(dropped²) (AR) and `beta` · mean((raw[:, 1:] - raw[:, :-1])²) (TAR), both of the last
    layer. ValueError if `alpha` or `beta` is given and the model returns only an output. A model with a method `reset`
    has it called before each pass. Source: Merity et al., arXiv 1708.01009.

    learn: the learner of the run.
    alpha, beta: the weights of AR and TAR, at least 0 (default 0: none).

    >>> learn = fake_learner(callback_fns=RNNTrainer)
    >>> learn.fit(1)
    """

    def __init__(self, learn: Any, alpha: float = 0.0, beta: float = 0.0) -> None:
        super().__init__(learn)
        for name, value in (("alpha", alpha), ("beta", beta)):
            positive_float(name, value, or_zero=True)
        self.alpha, self.beta, self.training = alpha, beta, True
        self.hidden: tuple[Tensor, ...] | None = None   # of this batch, from its output to its loss

    def on_train_begin(self) -> None:
        self.training = True

    def on_epoch_begin(self) -> None:
        self._reset()
        self.training = True

    def on_batch_begin(self, train: bool) -> None:
        if self.training != train:
            self._reset()
        self.training = train

    def on_loss_begin(self, last_output: Any, train: bool) -> Changes | None:
        if not isinstance(last_output, (list, tuple)) or len(last_output) != 3:
            if self.alpha or self.beta:
                raise ValueError("alpha and beta need a model that returns (output, raw, dropped), see RNNTrainer; it "
                                 f"returned {type(last_output).__name__}")
            return None
        output, *hidden = last_output
        self.hidden = tuple(h if isinstance(h, Tensor) else h[-1] for h in hidden) if train else None
        return {"last_output": output}

    def on_backward_begin(self, last_loss: Tensor) -> Changes | None:
        if self.hidden is None:
            return None
        raw, dropped = self.hidden
        self.hidden = None
        if self.alpha:
            last_loss = last_loss + self.alpha * dropped.float().pow(2).mean()
        if self.beta and raw.shape[1] > 1:
            last_loss = last_loss + self.beta * (raw[:, 1:] - raw[:, :-1]).float().pow(2).mean()
        return {"last_loss": last_loss}

    def on_train_end(self) -> None:
        self.hidden = None      # a batch that failed has left its graph here

    def _reset(self) -> None:
        if callable(reset := getattr(self.learn.model, "reset", None)):
            reset()
