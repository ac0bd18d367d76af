"""Batch norm whose statistics stay as they are."""
from __future__ import annotations

from ..callback import LearnerCallback
from ..torch_private import BATCH_NORMS

__all__ = ["BnFreeze"]


class BnFreeze(LearnerCallback):
    """Keeps batch norm layers whose parameters are all frozen in eval mode: their running statistics stand still.

    With `train_bn` (the default of `Learner`) `freeze` leaves those parameters trainable, and there is nothing to keep.

    >>> learn = fake_learner(train_length=20)
    >>> learn.fit(2, 1e-2, callbacks=[BnFreeze(learn)])
    """

    def on_train_begin(self) -> None:
        self.layers = [m for m in self.learn.model.modules() if isinstance(m, BATCH_NORMS)
                       and m.affine and not any(p.requires_grad for p in m.parameters())]

    def on_batch_begin(self, train: bool) -> None:
        # the loop turns the whole model to train mode for each epoch, also for one that a resumed run goes on with
        if train and self.layers and self.layers[0].training:
            for layer in self.layers:
                layer.eval()

    def on_train_end(self) -> None:
        for layer in self.layers:
            layer.train(self.learn.model.training)
