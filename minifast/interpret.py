"""Where a trained model is wrong, in numbers and in pictures."""
from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import plots
from .data import DatasetType
from .inference import loader_for, predicted_classes, predictions
from .loaders import generators_kept
from .losses import task_of
from .snapshot import preserved
from .torch_private import uncompiled
from .utils import listify, run_model, to_detach

__all__ = ["ClassificationInterpretation"]


class ClassificationInterpretation:
    """Where a model is wrong: `learn.interpret()`.

    learn: the learner.
    preds: (n, ...), activated, on the CPU; y_true: (n, ...) the targets; losses: (n,).
    ds_type: of which data they are.
    thresh: the probability above which a label is given, where one output is for two classes.

    What is about classes raises a ValueError for a model of quantities or of several labels a sample. Targets that are
    the number of no class, such as those that a loss ignores, are left out.

    >>> found = fake_learner().interpret()
    >>> int(found.confusion_matrix().sum()), len(found.top_losses(3)[0])
    (5, 3)
    """

    def __init__(self, learn: Any, preds: Tensor, y_true: Tensor, losses: Tensor,
                 ds_type: Any = DatasetType.Valid, thresh: float = 0.5) -> None:
        self.learn, self.preds, self.y_true, self.losses = learn, preds, y_true, losses
        self.ds_type, self.thresh = ds_type, thresh

    @classmethod
    def from_learner(cls, learn: Any, ds_type: Any = DatasetType.Valid, thresh: float = 0.5,
                     tta: bool = False) -> ClassificationInterpretation:
        """Of the learner's predictions as they are now, those of `TTA` with `tta`: see the class."""
        get = learn.TTA if tta else learn.get_preds
        preds, targets, losses = get(ds_type=ds_type, with_loss=True)
        return cls(learn, preds, targets, losses, ds_type, thresh)

    @property
    def pred_class(self) -> Tensor:
        """The predicted classes, (n, ...); ValueError where there are none."""
        return predicted_classes(self.preds, self.learn.loss_func, self.thresh)

    @property
    def classes(self) -> list[Any]:
        """The names of the classes, or their numbers."""
        if self.learn.data.classes is not None:
            return list(self.learn.data.classes)
        two = task_of(self.learn.loss_func) == "labels"
        return list(range(2 if two else int(self.preds.shape[getattr(self.learn.loss_func, "axis", 1)])))

    def top_losses(self, k: int | None = None, largest: bool = True) -> tuple[Tensor, Tensor]:
        """The `k` largest (or smallest) losses, in order, and the indices of their samples; all of them by default."""
        values, indices = self.losses.sort(descending=largest, stable=True)
        return values[:k], indices[:k]

    def confusion_matrix(self) -> Any:
        """(c, c) counts as a numpy array: rows are the actual classes, columns the predicted ones."""
        predicted, actual = self.pred_class, self.y_true
        several = task_of(self.learn.loss_func) == "labels" and self.preds.ndim > 1 and self.preds.shape[1] > 1
        if several or not isinstance(actual, Tensor):
            raise ValueError("a confusion matrix is for one class a sample, and here each has several labels or "
                             "targets: look at learn.get_preds()")
        if actual.is_floating_point() and actual.shape == self.preds.shape and actual.numel() > predicted.numel():
            actual = predicted_classes(actual, self.learn.loss_func)   # a share for each class
        if actual.numel() != predicted.numel():
            raise ValueError(f"predictions of shape {tuple(predicted.shape)} do not fit targets of shape "
                             f"{tuple(actual.shape)}")
        actual, predicted, c = actual.flatten().long(), predicted.flatten(), len(self.classes)
        counted = (actual >= 0) & (actual < c) & (predicted < c)
        return torch.bincount(actual[counted] * c + predicted[counted], minlength=c * c).view(c, c).numpy()

    def most_confused(self, min_val: int = 1) -> list[tuple[Any, Any, int]]:
        """(actual, predicted, count) of the confusions that occur `min_val` times or more, the most frequent first."""
        counts, names = self.confusion_matrix(), self.classes
        found = [(names[i], names[j], int(n)) for (i, j), n in np.ndenumerate(counts) if i != j and n >= min_val]
        return sorted(found, key=lambda confusion: -confusion[2])

    def plot_confusion_matrix(self, normalize: bool = False, title: str = "Confusion matrix", cmap: str = "Blues",
                              norm_dec: int = 2, plot_txt: bool = True, return_fig: bool = False,
                              figsize: tuple[float, float] | None = None, dpi: float | None = None,
                              ax: Any = None) -> Any:
        """Draw the confusion matrix.

        normalize: shares of the actual class in place of counts, with `norm_dec` decimals.
        title, cmap: over the picture; matplotlib's name of the colours.
        plot_txt: whether the numbers are written in.
        return_fig: return the figure instead of showing it.
        figsize, dpi: width and height in inches, dots an inch; None: by the number of classes, matplotlib's.
        ax: axes of your own to draw in; None: new ones.
        """
        counts, names = self.confusion_matrix(), [str(c) for c in self.classes]
        if normalize:
            counts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axis = plots.plot_matrix(counts, names, "Predicted", "Actual", ax, title=title, cmap=cmap, figsize=figsize,
                                 dpi=dpi, text=(f"{{:.{norm_dec}f}}" if normalize else "{}") if plot_txt else "")
        return plots.finished(axis.figure, ax, return_fig)

    def plot_top_losses(self, k: int = 9, largest: bool = True, figsize: tuple[float, float] | None = None,
                        heatmap: bool = False, heatmap_thresh: int = 16, alpha: float = 0.6, cmap: str = "magma",
                        show_text: bool = True, return_fig: bool = False) -> Any:
        """Draw the pictures with the largest losses, each with prediction, actual, loss, and the actual's probability.

        k, largest: how many; False: the smallest.
        figsize: width and height in inches; None: 3 for each picture.
        heatmap: draw over each where the last convolution speaks for the prediction: Grad-CAM (arXiv 1610.02391).
        heatmap_thresh: without a heat map where that convolution has fewer positions than this.
        alpha, cmap: opacity and matplotlib's colours of the heat map.
        show_text: whether there are titles.
        return_fig: return the figure instead of showing it.

        ValueError if the inputs are no pictures, or with `heatmap` the model has no convolution of pictures.
        """
        losses, rows = self.top_losses(k, largest)
        x, _ = _samples(self.learn, self.ds_type, rows.tolist())
        maps = _class_activation(self.learn, x, heatmap_thresh) if heatmap else None
        titles = [self._title(int(i), float(loss)) for i, loss in zip(rows, losses, strict=True)] if show_text else None
        head = "Prediction / actual\nloss" + " / probability of the actual" * self._has_classes
        return plots.finished(plots.plot_pictures(_pictures(self.learn, x), titles, figsize, maps, alpha, cmap,
                                                  head if show_text else ""), None, return_fig)

    def plot_multi_top_losses(self, samples: int = 3, figsize: tuple[float, float] | None = None,
                              return_fig: bool = False) -> Any:
        """Draw the pictures with the largest losses where each has several labels: what they have, what the model says,
        and the label that it is most wrong about with its probability.

        samples: how many.
        figsize: width and height in inches; None: 3 for each picture.
        return_fig: return the figure instead of showing it.

        ValueError where samples do not have several labels.
        """
        preds, y = self.preds, self.y_true
        if task_of(self.learn.loss_func) != "labels" or preds.ndim != 2 or preds.shape != y.shape:
            raise ValueError("these samples do not have several labels each: plot_top_losses draws them")
        losses, rows = self.top_losses(samples)
        x, _ = _samples(self.learn, self.ds_type, rows.tolist())
        titles = []
        for i, loss in zip(rows.tolist(), losses.tolist(), strict=True):
            worst = int((preds[i] - y[i]).abs().argmax())
            said = (_name(self.learn, (each > self.thresh).float()) or "nothing" for each in (y[i], preds[i]))
            titles.append("\n".join([*said, f"{loss:.2f} / {self.classes[worst]}: {float(preds[i, worst]):.2f}"]))
        figure = plots.plot_pictures(_pictures(self.learn, x), titles, figsize,
                                     head="Actual\nprediction\nloss / worst label: its probability")
        return plots.finished(figure, None, return_fig)

    @property
    def _has_classes(self) -> bool:
        try:
            return self.pred_class.ndim == 1
        except ValueError:
            return False

    def _title(self, i: int, loss: float) -> str:
        if not self._has_classes:
            return f"{_text(self.preds[i])} / {_text(self.y_true[i])}\n{loss:.2f}"
        names, actual, predicted = self.classes, int(self.y_true[i]), int(self.pred_class[i])
        pred = self.preds[i].flatten()
        share = pred[actual] if len(pred) > 1 else pred[0] if actual else 1 - pred[0]
        return f"{names[predicted]} / {names[actual]}\n{loss:.2f} / {float(share):.2f}"


def show_results(learn: Any, ds_type: Any, rows: int, figsize: tuple[float, float] | None, return_fig: bool) -> Any:
    """Draw pictures with targets over predictions: see `Learner.show_results`."""
    dl = loader_for(learn.data, ds_type)
    some = list(range(rows * rows))
    x, y = _samples(learn, ds_type, some)
    n = len(x)
    with preserved(learn, listify(learn.callbacks), weights=False):
        preds = predictions(learn, dl, n_batch=math.ceil(n / max(1, dl.batch_size or 1)))[0][:n]
    try:
        said = predicted_classes(preds, learn.loss_func)
    except ValueError:
        said = preds
    if said.ndim == x.ndim - 1:     # masks, as a colour each
        both = torch.stack([y.reshape(said.shape).float(), said.float()], 1).flatten(0, 1)
        figure = plots.plot_pictures(_pictures(learn, x).repeat_interleave(2, 0), ["target", "prediction"] * n, figsize,
                                     both, 0.5, plots.mask_colours(int(both.max()) + 1), columns=2 * rows)
        return plots.finished(figure, None, return_fig)
    titles = [f"{_name(learn, a)}\n{_name(learn, b)}" for a, b in zip(y, said, strict=True)]
    figure = plots.plot_pictures(_pictures(learn, x), titles, figsize, head="Target / prediction", columns=rows)
    return plots.finished(figure, None, return_fig)


def _name(learn: Any, target: Tensor) -> str:
    classes = learn.data.classes
    if classes is None or target.is_floating_point() and target.ndim == 0 and task_of(learn.loss_func) != "labels":
        return _text(target)
    if target.numel() == 1:
        return str(classes[int(target)])
    return "; ".join(str(name) for name, yes in zip(classes, target.tolist(), strict=True) if yes)


def _text(x: Tensor) -> str:
    return ", ".join(f"{v:.3g}" for v in x.flatten().tolist()[:4])


def _samples(learn: Any, ds_type: Any, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Inputs, as the model gets them, and targets of these samples; the loader is left unchanged."""
    dl = loader_for(learn.data, ds_type)
    found: dict[int, tuple[Tensor, Tensor]] = {}
    state, first = dl.state_dict(), 0
    with generators_kept():
        for x, y in dl:
            if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] not in (1, 3):
                raise ValueError("only pictures can be drawn, inputs of the shape (n, 1 or 3, height, width)")
            found |= {i: (x[i - first], y[i - first]) for i in rows if first <= i < first + len(x)}
            first += len(x)
            if first > max(rows):
                break
    dl.load_state_dict(state)
    xs, ys = zip(*(found[i] for i in rows if i in found), strict=True)
    return torch.stack(xs), torch.stack(ys).cpu()


def _pictures(learn: Any, x: Tensor) -> Tensor:
    pictures: Tensor = to_detach(learn.data.denorm(x)).float().clamp(0, 1)
    return pictures


def _class_activation(learn: Any, x: Tensor, fewest: int) -> Tensor | None:
    """Grad-CAM (n, h, w) of the predictions: the last convolution's activations, each channel weighted by the mean of
    its gradient, what is below 0 cut off; None where it has fewer than `fewest` positions."""
    stored: list[Tensor] = []
    convolutions = [m for m in learn.model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    if not convolutions:
        raise ValueError("a heat map needs a convolution of pictures in the model, and it has none: heatmap=False")
    handles = [m.register_forward_hook(lambda module, given, out: stored.append(out)) for m in convolutions]
    try:
        with preserved(learn, listify(learn.callbacks)), uncompiled(learn.model), torch.enable_grad():
            learn.model.eval()
            output = run_model(learn.model, x.requires_grad_())
            activations = stored[-1]    # of the one that was called last
            flat = output.flatten(1)
            chosen = flat.gather(1, flat.argmax(1, keepdim=True)).sum()
            [gradient] = torch.autograd.grad(chosen, activations)
    finally:
        for handle in handles:
            handle.remove()
    if activations.shape[-1] * activations.shape[-2] < fewest:
        warnings.warn(f"there is no heat map: the last convolution has {activations.shape[-2]}x{activations.shape[-1]} "
                      f"positions, fewer than heatmap_thresh={fewest}. Give a lower one, or larger pictures")
        return None
    weights = gradient.mean((2, 3), keepdim=True)
    return (activations * weights).sum(1).relu().detach().cpu()
