"""What a learner says with the model that it has: validation, predictions, where it is wrong."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .data import DataBunch, DatasetType
from .frames import frames_forgotten
from .inference import augmented_predictions, loader_for, prediction, predictions, run_validation
from .interpret import ClassificationInterpretation, show_results
from .utils import listify

__all__ = ["Predicting"]


class Predicting:
    """The part of a `Learner` that trains nothing: everything in it leaves the learner as it was."""

    data: DataBunch
    metrics: list[Any]

    @frames_forgotten
    def validate(self, dl: Any = None, callbacks: Any = None, metrics: Any = None) -> list[Any]:
        """[loss, metric, ...] over `dl` (default: the validation data) in eval mode; nothing is recorded or changed."""
        dl = self.data.wrap(dl) if dl is not None else self.data.valid_dl
        if dl is None:
            raise ValueError("there is no validation data: give some to the DataBunch, or pass dl=")
        metrics = listify(self.metrics if metrics is None else metrics)
        return run_validation(self, dl, metrics, callbacks).last_metrics

    @frames_forgotten
    def get_preds(self, ds_type: Any = DatasetType.Valid, activ: Callable[[Any], Any] | None = None,
                  with_loss: bool = False, n_batch: int | None = None, *, dl: Any = None) -> list[Any]:
        """[predictions, targets], and with `with_loss` the loss of each sample, on the CPU, in the order of the data.

        ds_type: of which data; the training data comes in order and whole, where it is known.
        activ: makes predictions of a batch's outputs; None: what belongs to the loss, softmax for cross-entropy.
        with_loss: whether the losses are wanted too.
        n_batch: only of the first batches; None: of all.
        dl: in place of `ds_type`: a loader, a list of batches, a data set, or new inputs (an array, a list of samples
            or of files), which are prepared as for validation; their targets are 0. (As `ds_type` they will do too.)

        Dicts, tuples and named tuples of outputs stay such; what differs in size from batch to batch comes as a list
        with one for each sample. ValueError if there is not one batch.

        >>> preds, targets = fake_learner().get_preds()
        >>> preds.shape, targets.shape, fake_learner().get_preds(dl=torch.randn(3, 5))[0].shape
        (torch.Size([5, 4]), torch.Size([5]), torch.Size([3, 4]))
        """
        found = predictions(self, loader_for(self.data, ds_type, dl), activ, with_loss, n_batch)
        return found[:3] if with_loss else found[:2]

    @frames_forgotten
    def predict(self, item: Any, thresh: float | None = None) -> tuple[Any, Any, Any]:
        """What the model says of one sample: (value, value as a tensor, probabilities or outputs).

        item: a sample's inputs as the data set gives them, or an array, a tuple or a dict of several; for pictures a
            path or PIL image too.
        thresh: the probability above which a label is given; None: 0.5, or what an exported learner says.

        The value goes by the loss and the shape of the output:

        - one of several classes: its name (a `Category`), or its number where the data has no classes;
        - one output of a binary cross entropy: one of two classes;
        - several of them: the names of all labels above `thresh` (a `MultiCategory`);
        - classes, or labels, for each position: a map of their numbers;
        - a quantity: the number; several: a tensor;
        - whatever else a model returns (a dict, a tuple): that of the one sample.

        >>> value, index, probabilities = fake_learner().predict(torch.ones(5))
        >>> value == int(index) == int(probabilities.argmax())
        True
        """
        return prediction(self, item, thresh)

    @frames_forgotten
    def TTA(self, beta: float | None = 0.4, scale: float = 1.35, ds_type: Any = DatasetType.Valid,
            activ: Callable[[Any], Any] | None = None, with_loss: bool = False, dls: Any = None) -> list[Any]:
        """Test-time augmentation: [predictions, targets], the predictions averaged over eight views of each picture.

        beta: the weight of the plain predictions, 1 - beta that of the mean of the eight; None: both are returned,
            [plain, mean, targets].
        scale: how far pictures are enlarged, at each corner, unflipped and flipped; transforms for training that do not
            crop, flip or zoom are drawn for each pass. With other functions in `ds_tfms` all of them are applied.
        ds_type, activ, with_loss: see `get_preds`; the losses are those of the plain predictions.
        dls: in place of the views: loaders of the same samples in the same order, one for each pass. One loader several
            times draws again each time.

        The learner is left unchanged. ValueError where there is nothing to vary the pictures by.
        """
        views = self.data.augmented_dls(ds_type, scale) if dls is None else [self.data.wrap(dl) for dl in dls]
        return augmented_predictions(self, ds_type, views, beta, activ, with_loss)

    tta = TTA

    def pred_batch(self, ds_type: Any = DatasetType.Valid, batch: Any = None) -> Any:
        """The predictions for a batch, on the CPU.

        ds_type: of which data the first batch is taken.
        batch: (inputs, targets), or None.

        >>> fake_learner().pred_batch().shape
        torch.Size([5, 4])
        """
        return predictions(self, loader_for(self.data, ds_type, None if batch is None else [batch]), n_batch=1)[0]

    def interpret(self, ds_type: Any = DatasetType.Valid, thresh: float = 0.5,
                  tta: bool = False) -> ClassificationInterpretation:
        """Where this model is wrong: see `ClassificationInterpretation`.

        ds_type: of which data.
        thresh: the probability above which a label is given, where one output is for two classes.
        tta: whether the predictions are those of `TTA`.
        """
        return ClassificationInterpretation.from_learner(self, ds_type, thresh, tta)

    def show_results(self, ds_type: Any = DatasetType.Valid, rows: int = 5, figsize: tuple[float, float] | None = None,
                     return_fig: bool = False) -> Any:
        """Draw up to `rows` x `rows` pictures with what they are over what the model says.

        ds_type: of which data.
        figsize: width and height in inches; None: 1.8 for each picture.
        return_fig: return the figure instead of showing it.
        """
        return show_results(self, ds_type, rows, figsize, return_fig)
