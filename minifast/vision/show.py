"""A look at pictures that are data: a batch drawn, a batch in numbers, one picture as a batch."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..data import DataBunch, DatasetType
from ..plots import LISTED, finished, mask_colours
from ..utils import to_detach
from .masks import SegmentationLabelList

__all__ = ["Looking"]


class Looking(DataBunch):
    """The part of an `ImageDataBunch` that shows what is in it."""

    labels: Any

    def show_batch(self, rows: int = 5, ds_type: DatasetType = DatasetType.Train,
                   figsize: tuple[float, float] | None = None, return_fig: bool = False) -> Any:
        """Draw up to `rows` x `rows` pictures of a batch with their labels.

        ds_type: of which data.
        figsize: width and height in inches; default: 1.6 x 1.8 for each picture.
        return_fig: return the figure instead of showing it.
        """
        import matplotlib.pyplot as plt
        x, y = self.one_batch(ds_type)
        colours = mask_colours(len(self.classes or ()))
        shown = min(rows, -(-len(x) // rows))
        fig, axes = plt.subplots(shown, rows, figsize=figsize or (1.6 * rows, 1.8 * shown), layout="constrained",
                                 squeeze=False)
        for ax in axes.flat:
            ax.axis("off")
        for ax, image, target in zip(axes.flat, x.clamp(0, 1), y, strict=False):
            ax.imshow(image.permute(1, 2, 0).numpy())
            if isinstance(self.labels, SegmentationLabelList):
                ax.imshow(target.numpy(), alpha=0.5, cmap=colours, vmin=0, vmax=LISTED[colours] - 1)
            ax.set_title(self._title(target))
        return finished(fig, None, return_fig)

    def _title(self, target: Tensor) -> str:
        if self.labels is not None:
            return str(self.labels.text(target))
        return str(target.tolist() if self.classes is None else self.classes[int(target)])

    def batch_stats(self, ds_type: DatasetType = DatasetType.Train) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of a batch, as the model gets it: of normalised pictures about 0
        and 1, of others what `normalize` can be given.

        ds_type: of which data.

        >>> from minifast.fakes import fake_pictures
        >>> data = fake_pictures()
        >>> data.normalize(data.batch_stats()).batch_stats()[1].shape
        torch.Size([3])
        """
        x, _ = self.one_batch(ds_type, denorm=False)
        channels = x.transpose(0, 1).flatten(1)
        return channels.mean(1), channels.std(1)

    def one_item(self, item: Any, detach: bool = False, denorm: bool = False, cpu: bool = False) -> tuple[Any, Tensor]:
        """One new picture as a batch (x, y), prepared as for validation; the target is 0.

        item: a path, PIL image or tensor.
        detach: cut it from its graph, and with `cpu` bring it there.
        denorm: undo `normalize`.

        >>> from minifast.fakes import fake_pictures
        >>> x, y = fake_pictures().one_item(torch.zeros(3, 32, 32))
        >>> x.shape, y
        (torch.Size([1, 3, 32, 32]), tensor([0]))
        """
        x = self.prepare_item(item)
        y = torch.zeros(1, dtype=torch.long, device=self.device) if self.labels is None else self.labels.blank(1)
        batch = (self.denorm(x) if denorm else x, y.to(self.device))
        return to_detach(batch, cpu) if detach else batch
