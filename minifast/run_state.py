"""A run's state for a file: all that it changes, and back into the learner of another process."""
from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from .callback import Callback, role_of
from .data_objects import data_objects, named_loaders, own_generators
from .keeping import Kept, same, small
from .kinds import OBJECT, fill_object, kind_of
from .loaders import ItemLoader
from .module_state import attributes, set_attributes
from .restoring import put_back
from .sharded import class_of
from .snapshot import learner_state, load_learner_state
from .utils import map_tensors, tensors_in

__all__ = ["RunState"]

PROCESS = uuid.uuid4().hex      # the objects of a run that this very process has written are still as they became
Lost = list[tuple[str, str]]


class Holder(NamedTuple):
    """Something with attributes: its name, they, how they are set (None: they are filled in place), and its class."""

    place: str
    values: dict[str, Any]
    write: Callable[[dict[str, Any]], Any] | None
    owner: type | None = None


class RunState:
    """What a run of `learn` with these callbacks (by name) changes, compared with what is there at its beginning, now.

    `state()` is all of it in plain values and tensors. `put_back(state)` continues a run in another process: what the
    run has changed is set; what it has not is the new program's. `lost`: places and types of what cannot be kept.

    >>> learn = fake_learner()
    >>> sorted(RunState(learn, {}).state())
    ['changed', 'learner', 'loaders', 'parts', 'process']
    """

    def __init__(self, learn: Any, callbacks: Mapping[str, Callback]) -> None:
        self.learn, self.callbacks = learn, callbacks
        self.lost: Lost = []
        self.n_named = 0    # of them, in warnings
        self._before: dict[str, dict[str, Any]] = {}
        self._classes: dict[str, dict[str, type]] = {}
        ids = self._ids()
        for holder in (*self._holders(), *self._replayed()):
            kept = Kept(holder.values, ids)
            self._before[holder.place] = small(kept.value)
            self._classes[holder.place] = kept.classes
            self._note(holder.place, kept)
        for name, dl in named_loaders(learn.data).items():
            if dl.dl is not None and name != "fixed" and bool(getattr(dl.dl, "num_workers", 0)):
                self._note_workers(name, dl)
        self.begin_pass()

    def begin_pass(self) -> None:
        """A pass over the training batches begins: it is repeated from the state before it."""
        self._pass_state = self._loader_state("training", self.learn.data.train_dl)

    def state(self) -> dict[str, Any]:
        """All that the run needs to go on from here. The tensors are the living ones, not copies."""
        ids, parts, changed = self._ids(), {}, {}
        for place, values, *_ in self._holders():
            kept = Kept(values, ids, self._classes.get(place, {}))
            before = self._before.get(place, {})
            parts[place] = kept.value
            changed[place] = [name for name, value in kept.value.items()
                              if kept.shared or name not in before or not same(before[name], value)]
            self._note(place, kept)
        loaders = {name: self._loader_state(name, dl) for name, dl in named_loaders(self.learn.data).items()
                   if name != "training"}
        return {"learner": learner_state(self.learn), "loaders": {"training": self._pass_state, **loaders},
                "parts": parts, "changed": changed, "process": PROCESS}

    def places(self) -> list[str]:
        """Of model, loss function and the callbacks that shape the training: what any state of the same run holds."""
        watching = {f"callback {name}" for name, cb in self.callbacks.items() if role_of(cb) not in ("training", "fit")}
        return [h.place for h in self._holders() if h.place.startswith(("model", "loss function", "callback "))
                and h.place not in watching]

    def others(self, state: dict[str, Any]) -> list[str]:
        """Attributes of model, loss function and callbacks that the run has not changed, and that are others here, in
        words; numbers of tensors apart."""
        found = []
        for place in self.places() if state["process"] != PROCESS else ():
            kept, changed = state["parts"].get(place, {}), state["changed"].get(place, [])
            for name, now in self._before.get(place, {}).items():
                if name in kept and name not in changed and not tensors_in((kept[name], now)) \
                        and not same(small(kept[name]), now):
                    found.append(f"{place}, attribute {name}")
        return found

    def put_back(self, state: dict[str, Any], leave: Callable[[str, str], bool] = lambda place, name: False) -> Lost:
        """Take back what `state` returned; returns places and types of what could not be put back.

        leave: whether an attribute, by place and name, is to stay the new program's.
        """
        lost: Lost = []
        load_learner_state(self.learn, state["learner"])
        own, loaders = self._own(), named_loaders(self.learn.data)
        for name, held in state["loaders"].items():
            if name in loaders:
                loaders[name].load_state_dict(held["position"])
                for holder in self._of_loader(name, loaders[name]):
                    self._take(holder, held["parts"].get(holder.place, {}), own, lost)
        self._pass_state = state["loaders"]["training"]
        everything = state["process"] == PROCESS
        for holder in self._holders():
            if (kept := state["parts"].get(holder.place)) is not None:
                changed, here = state["changed"][holder.place], Lost()
                names = kept if everything else changed
                self._take(holder, {n: kept[n] for n in names if not leave(holder.place, n)}, own, here)
                lost += [(f"{holder.place}, attribute {where}", kind) for where, kind in here
                         if re.split(r"[.\[]", where)[0] in changed]
        return lost

    def _take(self, holder: Holder, kept: dict[str, Any], own: dict[str, Any], lost: Lost) -> None:
        if not kept:
            return
        try:
            found = put_back(dict(holder.values), kept, own, self._classes.get(holder.place, {}), lost, holder.owner)
        except ValueError as e:
            raise ValueError(f"{holder.place}: {e}") from e
        if holder.write is not None:
            holder.write({**holder.values, **found})

    def _note(self, place: str, kept: Kept) -> None:
        for where, kind in kept.lost:
            if (found := (f"{place}, attribute {where}", kind)) not in self.lost:
                self.lost.append(found)

    def _note_workers(self, name: str, dl: Any) -> None:
        """What changes in worker processes is not seen here."""
        if getattr(dl.dl, "persistent_workers", False):
            self.lost.append((f"what items of the {name} data draw at random in persistent workers", "process"))
        elif isinstance(dl.dl, ItemLoader):
            self.lost += [(f"the {name} {place} in worker processes", "generator") for place in own_generators(dl)]

    def _loader_state(self, name: str, dl: Any) -> dict[str, Any]:
        ids = self._ids()
        parts = {h.place: Kept(h.values, ids).value for h in self._of_loader(name, dl)}
        return {"position": dl.state_dict(), "parts": map_tensors(parts, torch.clone)}

    def _of_loader(self, name: str, dl: Any) -> Iterator[Holder]:
        """What changes in a loader whose passes are wound on to where they were cut: as before the pass."""
        if not hasattr(dl.dl, "batches"):
            yield from self._data(name, dl)

    def _replayed(self) -> Iterator[Holder]:
        for name, dl in named_loaders(self.learn.data).items():
            yield from self._of_loader(name, dl)

    def _data(self, name: str, dl: Any) -> Iterator[Holder]:
        for place, x, moving in data_objects(dl, f"{name} data"):
            write: Any = vars(x).update if type(getattr(x, "__dict__", None)) is dict else None
            if not hasattr(x, "__dict__") and kind_of(x) is OBJECT:
                write = partial(fill_object, x)     # of slots
            yield Holder(place, moving, write, type(x))

    def _holders(self) -> Iterator[Holder]:
        learn = self.learn
        for part, root in (("model", learn.model), ("loss function", learn.loss_func)):
            if isinstance(root, nn.Module):
                for name, m in root.named_modules():
                    place = f"{part}{'.' * bool(name)}{name} ({class_of(m).__name__})"
                    yield Holder(place, attributes(m), partial(set_attributes, m), type(m))
        if not isinstance(learn.loss_func, nn.Module):
            yield Holder("loss function", {"itself": learn.loss_func}, None)
        seen: set[int] = set()
        for kind, dl in named_loaders(learn.data).items():
            for i, tfm in enumerate(dl.tfms):
                if id(tfm) not in seen:
                    yield Holder(f"transform {i} of {kind} batches ({type(tfm).__name__})", {"itself": tfm}, None)
                seen.add(id(tfm))
            if hasattr(dl.dl, "batches"):
                yield from self._data(kind, dl)
        for name, cb in self.callbacks.items():
            yield Holder(f"callback {name}", cb.state_dict(), cb.load_state_dict, type(cb))

    def _own(self) -> dict[str, Any]:
        """What is kept in a place of its own: a reference to it is kept as its name."""
        learn = self.learn
        own: dict[str, Any] = {"learn": learn, "data": learn.data, "handler": learn.handler, "recorder": learn.recorder,
                               "opt": learn.opt, "torch's opt": learn.opt.opt}
        if learn.handler is not None:
            own |= {"state": learn.handler.state, "pbar": learn.handler.state.pbar}
        for part, root in (("model", learn.model), ("loss", learn.loss_func)):
            if isinstance(root, nn.Module):
                own |= {f"{part}.{name}": m for name, m in root.named_modules()}
                own |= {f"{part} {name}": t for name, t in (*root.named_parameters(), *root.named_buffers())}
        for name, dl in named_loaders(learn.data).items():
            inner = dl.dl
            held = {"": dl, ".dl": inner, ".dataset": dl.dataset, ".x": getattr(inner, "x", None),
                    ".y": getattr(inner, "y", None)}
            own |= {f"{name}{key}": x for key, x in held.items() if x is not None}
        return {**own, **{f"callback {name}": cb for name, cb in self.callbacks.items()}}

    def _ids(self) -> dict[int, str]:
        return {id(x): name for name, x in reversed(self._own().items())}

