"""Things that change when they are used, and the places of a training where they can stand."""
from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import itertools
import multiprocessing
import queue
import random
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.utils.data import Dataset

from minifast.callback import Callback
from minifast.data import DataBunch
from minifast.learner import Learner

__all__ = ["KINDS", "PLACES"]

# ---- kinds: how a thing is made, and how it is used: (thing, a number that depends on it); the thing may be a new one

Use = Callable[[Any], tuple[Any, float]]
Thing = tuple[Callable[[], Any], Use]


@dataclasses.dataclass
class Best:
    value: float = 0.0
    seen: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    value: float = 0.0


class Phase(enum.Enum):
    A, B, C = range(3)


class Plain:
    def __init__(self) -> None:
        self.inner, self.n = Best(), 0


class Slots:
    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0


class Own(list[Any]):
    pass


class OwnDict(dict[str, Any]):
    pass


class Stateful:
    """It says itself what its state is, under another name than it has it."""

    def __init__(self) -> None:
        self._hidden = (i * i for i in range(10**9))
        self.n = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.n = state["count"]


Pair = collections.namedtuple("Pair", "a b")


def changing(change: Callable[[Any], float]) -> Use:
    """The thing changes itself."""
    return lambda x: (x, change(x))


def replaced(by: Callable[[Any], Any], value: Callable[[Any], float]) -> Use:
    """Another thing takes its place."""
    def use(x: Any) -> tuple[Any, float]:
        x = by(x)
        return x, value(x)
    return use


def grown(x: Any) -> float:
    x.append(len(x) % 5)
    return sum(x) / 50


def counted(x: Any) -> float:
    x["n"] = x.get("n", 0) + 1
    return x["n"] / 50


def plus(name: str) -> Callable[[Any], float]:
    def use(x: Any) -> float:
        setattr(x, name, getattr(x, name) + 1)
        return getattr(x, name) / 50
    return use


def deep(x: Any) -> float:
    x.n += 1
    x.inner.value += 1
    x.inner.seen.append(x.n)
    return (x.n + x.inner.value + len(x.inner.seen)) / 100


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def learned(x: Any) -> float:
    """A step of another network, with its optimizer and scheduler."""
    model, opt, sched = x
    opt.zero_grad()
    with torch.enable_grad():   # in a validation too
        loss = model(torch.eye(2) + 1).square().sum() + model[0].weight.sum()
        loss.backward()
    opt.step()
    sched.step()
    return float(model[0].weight.detach().sum())


def second() -> list[Any]:
    model = net()
    opt = optim.Adam(model.parameters(), 0.1)
    return [model, opt, optim.lr_scheduler.StepLR(opt, 2, 0.5)]


def averaged(x: nn.Module) -> float:
    with torch.no_grad():
        for p in x.parameters():
            p.mul_(0.9).add_(0.01)
        x(torch.eye(2))
    return float(x[0].weight.detach().sum() + x[1].running_mean.sum())


def counting() -> Callable[[], int]:
    n = 0

    def count() -> int:
        nonlocal n
        n += 1
        return n
    return count


def remembering() -> Callable[[], Tensor]:
    mean: Tensor | None = None

    def remember() -> Tensor:
        nonlocal mean
        mean = torch.ones(1) if mean is None else mean * 0.9
        return mean
    return remember


def in_place(x: Any) -> float:
    x += 1
    return float(x.sum()) / 100


def twice() -> list[Any]:
    shared = [0]
    return [shared, shared]


def use_twice(x: Any) -> float:
    x[0][0] += 1
    return x[1][0] / 50


def ring() -> list[Any]:
    x: list[Any] = [0]
    x.append(x)
    return x


def through_ring(x: Any) -> float:
    x[1][1][0] += 1
    return x[0] / 50


def scaled(x: Any) -> float:
    x.scale(torch.ones(1))
    x.update(x.get_scale() * 0.9)
    return x.get_scale() / 100


def put(x: Any) -> float:
    x.put(x.qsize())
    return x.qsize() / 50


def shared_number(x: Any) -> float:
    x.value += 1
    return x.value / 50


def shared_row(x: Any) -> float:
    x[0] += 1
    return x[0] / 50


def scripted() -> Any:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n = torch.jit.Attribute(0, int)
            self.seen = torch.zeros(1)

        def forward(self, x):   # type: ignore[no-untyped-def]
            self.n += 1
            self.seen = self.seen + x
            return self.seen * self.n
    return torch.jit.script(Counts())


def structured() -> Any:
    return np.zeros(1, dtype=[("a", "i4"), ("b", "f8")])


def use_structured(x: Any) -> float:
    x["a"] += 1
    return float(x["a"][0]) / 50


def objects() -> Any:
    return np.array([0, Best()], dtype=object)


def use_objects(x: Any) -> float:
    x[0] += 1
    x[1].value += 1
    return (x[0] + x[1].value) / 100


def masked(x: Any) -> float:
    x[0] += 1
    x.mask[1] = not x.mask[1]
    return float(x.sum()) / 50


def more(x: Any) -> Any:
    return x + 1


KINDS: dict[str, Thing] = {
    "int": (lambda: 0, replaced(more, lambda x: x / 50)), "float": (lambda: 0.0, replaced(more, lambda x: x / 50)),
    "None at first": (lambda: None, replaced(lambda x: (x or 0) + 1, lambda x: x / 50)),
    "text": (str, replaced(lambda x: x + "a", lambda x: len(x) / 50)),
    "bytes": (bytes, replaced(lambda x: x + b"a", lambda x: len(x) / 50)),
    "tuple": (tuple, replaced(lambda x: (*x, 1), lambda x: len(x) / 50)),
    "list": (list, changing(grown)), "dict": (dict, changing(counted)), "nest": (lambda: {"a": [{"b": [0]}]}, changing(
        lambda x: grown(x["a"][0]["b"]))),
    "set": (set, changing(lambda x: (x.add(len(x)), len(x) / 50)[1])), "deque": (
        lambda: collections.deque(maxlen=4), changing(grown)),
    "Counter": (collections.Counter, changing(counted)), "OrderedDict": (collections.OrderedDict, changing(counted)),
    "defaultdict": (lambda: collections.defaultdict(list), changing(lambda x: grown(x["a"]))),
    "array.array": (lambda: array.array("d"), changing(grown)), "bytearray": (bytearray, changing(grown)),
    "own list": (Own, changing(grown)), "own dict": (OwnDict, changing(counted)),
    "UserList": (collections.UserList, changing(grown)), "namespace": (lambda: types.SimpleNamespace(n=0), changing(
        plus("n"))),
    "shared list": (twice, changing(use_twice)), "ring": (ring, changing(through_ring)),
    "array": (lambda: np.zeros(3), changing(in_place)), "float32": (lambda: np.float32(0), replaced(
        more, lambda x: float(x) / 50)),
    "int64": (lambda: np.int64(0), replaced(more, lambda x: float(x) / 50)),
    "structured array": (structured, changing(use_structured)), "object array": (objects, changing(use_objects)),
    "masked array": (lambda: np.ma.MaskedArray([0.0, 1.0], [False, False]), changing(masked)),
    "tensor": (lambda: torch.zeros(2), changing(in_place)), "new tensors": (lambda: torch.zeros(2), replaced(
        more, lambda x: float(x.sum()) / 100)),
    "growing tensor": (lambda: torch.zeros(0), replaced(lambda x: torch.cat([x, torch.ones(1)]),
                                                        lambda x: len(x) / 50)),
    "sparse tensor": (lambda: torch.eye(2).to_sparse(), replaced(lambda x: (x * 1.1).coalesce(),
                                                                 lambda x: float(x.to_dense().sum()) / 50)),
    "Random": (lambda: random.Random(1), changing(lambda x: x.random())),
    "Generator": (lambda: np.random.default_rng(1), changing(lambda x: x.random())),
    "RandomState": (lambda: np.random.RandomState(1), changing(lambda x: x.rand())),
    "MT19937": (lambda: np.random.MT19937(1), changing(lambda x: x.random_raw() / 2**34)),
    "torch.Generator": (lambda: torch.Generator().manual_seed(1), changing(
        lambda x: float(torch.rand((), generator=x)))),
    "method of a generator": (lambda: np.random.default_rng(1).random, changing(lambda x: x())),
    "partial": (lambda: functools.partial(random.Random(1).uniform, 0, 1), changing(lambda x: x())),
    "closure that counts": (counting, changing(lambda x: x() / 50)),
    "closure that remembers": (remembering, changing(lambda x: float(x()))),
    "dataclass": (Best, changing(plus("value"))), "frozen dataclass": (Frozen, replaced(
        lambda x: Frozen(x.value + 1), lambda x: x.value / 50)),
    "enum": (lambda: Phase.A, replaced(lambda x: Phase((x.value + 1) % 3), lambda x: x.value / 5)),
    "named tuple": (lambda: Pair(0, [0]), replaced(lambda x: Pair(x.a + 1, [x.b[0] + 1]), lambda x: (
        x.a + x.b[0]) / 100)),
    "object": (Plain, changing(deep)), "slots": (Slots, changing(plus("n"))),
    "complex": (complex, replaced(more, lambda x: x.real / 50)),
    "fraction": (fractions.Fraction, replaced(lambda x: x + fractions.Fraction(1, 7), lambda x: float(x) / 10)),
    "decimal": (decimal.Decimal, replaced(lambda x: x + 1, lambda x: float(x) / 50)),
    "date": (lambda: datetime.date(2020, 1, 1), replaced(lambda x: x + datetime.timedelta(1), lambda x: x.day / 50)),
    "path": (lambda: Path("a"), replaced(lambda x: x / "b", lambda x: len(x.parts) / 50)),
    "network": (net, changing(averaged)), "network, optimizer, schedule": (second, changing(learned)),
    "scaler": (lambda: torch.amp.GradScaler("cpu", init_scale=16.0), changing(scaled)),
    "state_dict": (Stateful, changing(plus("n"))), "scripted module": (scripted, changing(
        lambda x: float(x(torch.ones(1))) / 500)),
    "queue": (queue.Queue, changing(put)), "shared number": (lambda: multiprocessing.Value("i", 0), changing(
        shared_number)),
    "shared row": (lambda: multiprocessing.Array("d", 2), changing(shared_row)),
    "iterator": (lambda: iter(range(10**6)), changing(lambda x: next(x) / 50)),
    "generator": (lambda: (i for i in range(10**6)), changing(lambda x: next(x) / 50)),
    "count": (itertools.count, changing(lambda x: next(x) / 50)),
    "cycle": (lambda: itertools.cycle([0.1, 0.2, 0.3]), changing(next)),
}

# ---- places: a learner whose training depends on the thing there


class Items(Dataset[Any]):
    """A data set; item `i` is spoiled by what `use` gives."""

    def __init__(self, thing: Thing | None = None, n: int = 20) -> None:
        gen = torch.Generator().manual_seed(7)
        self.x, self.y = torch.randn(n, 3, generator=gen), torch.arange(n) % 2
        self.thing, self.use = (thing[0](), thing[1]) if thing else (None, None)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        x = self.x[i]
        if self.use is not None:
            self.thing, value = self.use(self.thing)
            x = x + value
        return x, self.y[i]


class Scaling(nn.Module):
    """A layer, a loss or a transform that depends on the thing."""

    def __init__(self, thing: Thing, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.use = thing[1]
        self.thing = thing[0]()
        self.inner = inner

    def forward(self, *args: Any) -> Any:
        self.thing, value = self.use(self.thing)
        return (1 + value) * (args[0] if self.inner is None else self.inner(*args))


class Scale(Callback):
    """A callback that depends on the thing."""

    def __init__(self, thing: Thing) -> None:
        self.thing, self.use = thing[0](), thing[1]

    def on_backward_begin(self, last_loss: Tensor) -> dict[str, Any]:
        self.thing, value = self.use(self.thing)
        return {"last_loss": last_loss * (1 + value)}


class Transform:
    """A batch transform that depends on the thing; it may stand for a loss too."""

    def __init__(self, thing: Thing) -> None:
        self.thing, self.use = thing[0](), thing[1]

    def __call__(self, batch: Any) -> Any:
        self.thing, value = self.use(self.thing)
        return batch[0] * (1 + value), batch[1]


def learner(folder: Path, data: DataBunch | None = None, layer: nn.Module | None = None, callbacks: Any = (),
            loss: Any = None, tfm: Any = None) -> Learner:
    torch.manual_seed(2)
    data = data or DataBunch.create(Items(), Items(n=8), bs=4, seed=3, loss_func=nn.CrossEntropyLoss())
    if tfm is not None:
        data.add_tfm(tfm)
    model = nn.Sequential(nn.Linear(3, 4), layer or nn.ReLU(), nn.Linear(4, 2))
    return Learner(data, model, loss_func=loss or nn.CrossEntropyLoss(), path=folder, silent=True,
                   callbacks=list(callbacks))


def in_function(thing: Thing) -> Any:
    """A loss function that has the thing in its closure."""
    x, use = thing[0](), thing[1]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        nonlocal x
        x, value = use(x)
        return nn.functional.cross_entropy(output, target) * (1 + value)
    return loss


PLACES: dict[str, Callable[[Thing, Path], Learner]] = {
    "a callback": lambda thing, folder: learner(folder, callbacks=[Scale(thing)]),
    "a model": lambda thing, folder: learner(folder, layer=Scaling(thing)),
    "a loss": lambda thing, folder: learner(folder, loss=Scaling(thing, nn.CrossEntropyLoss())),
    "a transform": lambda thing, folder: learner(folder, tfm=Transform(thing)),
    "a data set": lambda thing, folder: learner(folder, DataBunch.create(
        Items(thing), Items(thing, 8), bs=4, seed=3, loss_func=nn.CrossEntropyLoss())),
    "a loss function's closure": lambda thing, folder: learner(folder, loss=in_function(thing)),
}
