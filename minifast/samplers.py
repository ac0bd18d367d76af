"""Which samples a training pass takes: by class, by weight, by a function or by a sampler of torch."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from .loaders import ItemLoader, Loader, TensorLoader, generators_kept, require_batch

__all__ = ["class_labels", "class_weights", "use_sampler"]


def use_sampler(loader: Any, sampler: Any) -> None:
    """From now on the loader's passes take the samples that `sampler` gives, as a function of (seed, pass).

    loader: a loader of our own.
    sampler: one of these:

        - "balanced": each class as likely as any other, as many samples as there are;
        - a weight for each sample, (n,), none below 0: as many samples as there are, drawn with replacement;
        - a function of a torch.Generator that returns the numbers of the samples; it must draw from that alone;
        - a sampler of torch without a generator of its own.

    TypeError or ValueError that says what does not fit.

    >>> loader = TensorLoader(torch.arange(4), tensor([0, 1, 1, 1]), bs=100, seed=0)
    >>> use_sampler(loader, [0.0, 0.0, 1.0, 0.0])
    >>> next(iter(loader))[0]
    tensor([2, 2, 2, 2])
    """
    if not isinstance(loader, Loader):
        raise TypeError(f"sampler= is for data sets and arrays (DataBunch.create, from_arrays, ...); a "
                        f"{type(loader).__name__} has an order of its own")
    n = loader.n
    if isinstance(sampler, str):
        if sampler != "balanced":
            raise ValueError(f'the one sampler with a name is "balanced", not {sampler!r}')
        sampler = class_weights(class_labels(loader), n)
    if isinstance(sampler, type):
        raise TypeError(f"sampler is the class {sampler.__name__}: make an instance")
    if isinstance(sampler, Sampler):
        draw, size = _of_torch(sampler), len(sampler)   # type: ignore[arg-type]
    elif callable(sampler):
        draw, size = sampler, len(sampler(torch.Generator()))
    else:
        draw, size = _weighted(_checked(sampler, n)), n
    if not size:
        raise ValueError(f"the sampler {sampler!r} gives not one sample")

    def rows(gen: torch.Generator) -> Tensor:
        found = torch.as_tensor(draw(gen))
        if len(found) != size or int(found.min()) < 0 or int(found.max()) >= n:
            raise ValueError(f"the sampler gave {len(found)} samples from {int(found.min())} to {int(found.max())}: a "
                             f"pass has {size}, and their numbers go from 0 to {n - 1}")
        return found
    loader.draw, loader.n, loader.sampler = rows, size, sampler
    require_batch(loader)


def class_labels(loader: Loader) -> Tensor | None:
    """The class of each of the loader's samples, (n,), where they are known without taking the samples."""
    if isinstance(loader, TensorLoader):
        labels = loader.y if loader.rows is None or not isinstance(loader.y, Tensor) else loader.y[loader.rows]
        return labels if isinstance(labels, Tensor) else None
    dataset = loader.dataset if isinstance(loader, ItemLoader) else None
    found = next((getattr(dataset, name) for name in ("y", "targets", "labels") if hasattr(dataset, name)), None)
    return None if found is None else torch.as_tensor(found)


def class_weights(labels: Tensor | None, n: int) -> Tensor:
    """A weight for each sample, (n,), with which all classes are equally likely: 1 / the size of its class.

    labels: the class of each sample, (n,), whole numbers.

    >>> class_weights(tensor([0, 1, 1, 1, 1]), 5)
    tensor([1.0000, 0.2500, 0.2500, 0.2500, 0.2500], dtype=torch.float64)
    """
    if labels is None or labels.shape != (n,) or labels.is_floating_point():
        raise ValueError(f'sampler="balanced" needs the classes of the {n} training samples, whole numbers, and this '
                         "data does not say them: give a weight for each sample, sampler=weights")
    _, place, counts = labels.cpu().unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    weights: Tensor = 1 / counts.double()[place]
    return weights


def _checked(weights: Any, n: int) -> Tensor:
    found = torch.as_tensor(np.asarray(weights) if hasattr(weights, "iloc") else weights).cpu().double()
    if found.shape != (n,) or not bool(found.isfinite().all()) or bool((found < 0).any()) or not bool(found.any()):
        raise ValueError(f"sampler= needs a weight for each of the {n} training samples, none below 0 and not all 0; "
                         f"these have the shape {tuple(found.shape)}"
                         + (f" and go from {float(found.min()):g} to {float(found.max()):g}" if found.numel() else ""))
    return found


def _weighted(weights: Tensor) -> Callable[[torch.Generator], Tensor]:
    ends = weights.cumsum(0)    # not torch.multinomial, which takes 2**24 samples at most

    def draw(gen: torch.Generator) -> Tensor:
        at = torch.rand(len(ends), dtype=torch.float64, generator=gen) * ends[-1]
        return torch.searchsorted(ends, at, right=True).clamp_(max=len(ends) - 1)
    return draw


def _of_torch(sampler: Any) -> Callable[[torch.Generator], Tensor]:
    if getattr(sampler, "generator", None) is not None or hasattr(sampler, "set_epoch"):
        raise ValueError(f"this {type(sampler).__name__} has an order of its own, from a generator= or by set_epoch, "
                         "and here it is a function of the data's seed= and the pass: give a sampler without either")

    def draw(gen: torch.Generator) -> Tensor:
        with generators_kept():
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=gen)))
            return torch.tensor(list(sampler))
    return draw
