"""A run from a checkpoint's file: whether the file is one, whether the run is the same, and the learner as it was."""
from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .distributed import gathered, rank, together, world
from .progress import say
from .run_state import RunState
from .same_run import LENGTH, check_allowed, differences, settings, without_curves
from .snapshot import Moment, words
from .state import RETURNS
from .utils import map_tensors, rng_state, set_rng_state, tensors_in

__all__ = ["POSITION", "before_validation", "check_run", "name_lost", "of_each", "refuse_another", "say_where",
           "take_back", "accepted", "as_when_begun", "note_end", "remember_end"]

POSITION = ("n_epochs", "n_updates", "epoch", "num_batch", "iteration", "update", "smooth_loss", "last_metrics",
            "stop_training", "skip_validate")
_at_end: dict[Path, dict[str, Any]] = {}
FORM = {"settings": dict, "position": dict, "learner": dict, "loaders": dict, "parts": dict, "changed": dict,
        "process": str}


def before_validation(run: dict[str, Any]) -> dict[str, Any]:
    """A copy of the run, without the large tensors, which a validation leaves unchanged."""
    learner = run["learner"]
    small = map_tensors({**run, "learner": {"rng": learner["rng"]}}, torch.clone)
    return {**small, "learner": {**learner, **small["learner"]}}


def name_lost(state: RunState) -> None:
    """A warning that names what cannot be kept, and has not been named yet."""
    if lost := state.lost[state.n_named:]:
        state.n_named = len(state.lost)
        warnings.warn(f"a checkpoint cannot keep this, so a run that is cut off does not go on exactly: {words(lost)}. "
                      "Let state_dict and load_state_dict of the object or the callback give it in plain values")


def check_run(run: dict[str, Any], path: Path) -> None:
    """ValueError, which names the file and the field, if `run` is not made as a run is."""
    for name, kind in FORM.items():
        if not isinstance(run.get(name), kind):
            raise ValueError(f"{path} is no checkpoint that can be continued: its field {name!r} is "
                             f"{'missing' if name not in run else f'a {type(run[name]).__name__}'}. It was written by "
                             "another version, or by hand: delete it or choose another name")
    if tensors_in(run["settings"]) or not all(isinstance(name, str) for name in run["settings"]):
        raise ValueError(f"{path} is damaged: its field 'settings' holds other things than names and plain values")
    for place, names in run["changed"].items():
        held = run["parts"].get(place)
        if not isinstance(names, list) or not isinstance(held, dict) or not {*map(str, names)} <= {*held}:
            raise ValueError(f"{path} is damaged: its field 'parts' does not hold what {place!r} has changed")
    position = run["position"]
    for name in POSITION:
        try:
            RETURNS["train_begin"][name](name, position[name])
        except (KeyError, TypeError, ValueError) as e:
            raise ValueError(f"{path} is damaged: its position has no {name} that can be used ({e})") from None
    if position["epoch"] > position["n_epochs"]:
        raise ValueError(f"{path} is damaged: it is in epoch {position['epoch']} of {position['n_epochs']}")
    for name in {"training", *run["loaders"]}:
        held = run["loaders"].get(name)
        if not isinstance(held, dict) or not all(isinstance(held.get(part), dict) for part in ("position", "parts")):
            raise ValueError(f"{path} is damaged: it has no position in the {name} data")


def remember_end(path: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    """The settings that a run of this process has changed itself, such as an attribute that has the name of an argument
    and counts: when the run goes on here, they are no other settings."""
    _at_end.setdefault(path, {}).update({name: now[name] for name in now if now[name] != begun.get(name)})


def as_when_begun(path: Path, then: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The settings `now`, with those as they were `then` that are as a run of this process has left them.

    >>> remember_end(Path("x"), {"Mine": {"n": 0}}, {"Mine": {"n": 5}})
    >>> as_when_begun(Path("x"), {"Mine": {"n": 0}}, {"Mine": {"n": 5}})
    {'Mine': {'n': 0}}
    """
    left = _at_end.get(path, {})
    return {name: then[name] if name in then and name in left and left[name] == value else value
            for name, value in now.items()}


def accepted(run: dict[str, Any], now: dict[str, Any], path: Path, allow: Sequence[str],
             extend: bool) -> dict[str, Any]:
    """The settings of the run that goes on; ValueError if the file holds no run, or another one."""
    check_run(run, path)
    now = as_when_begun(path, run["settings"], now)
    refuse_another(run["settings"], now, path, allow, extend)
    return now


def note_end(learn: Any, path: Path, begun: dict[str, Any] | None, continued: str, error: BaseException | None) -> None:
    """What is to be known at the end of a run: an error says where the run had been continued; and what settings it has
    changed itself, if it has `begun` with some."""
    if error is not None and continued:
        error.add_note(f"the run had been continued from {path} in {continued}")
    if begun is not None:
        remember_end(path, begun, settings(learn))


def refuse_another(before: dict[str, Any], now: dict[str, Any], path: Path, allow: Sequence[str],
                   extend: bool) -> None:
    """ValueError if the file's run has other settings than this one, except those that may differ."""
    check_allowed(allow, before, now)
    free = {*allow, *(LENGTH if extend else ())}
    if any(before.get(name) != now.get(name) for name in LENGTH):
        before, now = without_curves(before), without_curves(now)
    wrong = {name: text for name, text in differences(before, now).items() if name not in free}
    if wrong:
        raise ValueError(
            f"{path} is a run that was begun with other settings, so it cannot be continued exactly: "
            + ". ".join(wrong.values()) + ". Set them back, choose another name, or continue on purpose with what is "
            f"set now: Checkpoint(learn, name, allow={list(wrong)}) among the callbacks"
            + ("; extend=True for more or fewer epochs" if {*wrong} & {*LENGTH} else ""))


def take_back(learn: Any, run: dict[str, Any], state: RunState, path: Path, now: dict[str, Any],
              allow: Sequence[str], extend: bool) -> tuple[dict[str, Any], bool]:
    """Bring the learner to where the run was; its position, and whether it is finished.

    What `allow` names keeps its new value. If anything does not fit, the learner is as before, and a ValueError names
    the file.
    """
    position, allowed = dict(run["position"]), {*allow, *(LENGTH if extend else ())}
    changed = {*differences(run["settings"], now)} & allowed
    if others := [name for name in state.others(run) if not any(part in name for part in changed)]:
        warnings.warn(f"{path} was begun with others here, and what is set now holds: {', '.join(others[:5])}")
    before = Moment(learn, [*state.callbacks.values(), learn.recorder])
    wanted = [{key: g[key] for key in changed if key in g} for g in learn.opt.opt.param_groups]

    def leave(place: str, name: str) -> bool:
        part = place.partition(" (")[0].split(".")[0]
        return part in changed or place.removeprefix("callback ") in changed and name in now.get(
            place.removeprefix("callback "), {})

    try:
        if not changed and (absent := [place for place in state.places() if place not in run["parts"]]):
            raise ValueError(f"it does not hold the {absent[0]}")
        lost = state.put_back(run, leave)
    except Exception as e:
        before.put_back()
        raise ValueError(f"{path} belongs to another model or optimizer, or is damaged: {e}. Nothing is loaded from "
                         "it") from e
    _take_own(learn, run)
    for group, values in zip(learn.opt.opt.param_groups, wanted, strict=True):
        group.update(values)
    if lost:
        warnings.warn(f"{path}: this could not be put back, so the run does not go on exactly: {words(lost)}")
    s = learn.handler.state
    if changed & {*LENGTH, "batches in an epoch"}:
        position |= {"n_epochs": s.n_epochs, "n_updates": s.n_updates, "stop_training": False}
        position["epoch"] = min(position["epoch"], s.n_epochs)
        position["num_batch"] = min(position["num_batch"], len(learn.data.train_dl))
    if position["smooth_loss"] is not None:
        position["smooth_loss"] = position["smooth_loss"].to(learn.data.device)
    return position, bool(position["stop_training"]) or position["epoch"] >= position["n_epochs"]


def of_each(learn: Any) -> dict[str, Any]:
    """What differs between the processes of a run: generators, and gradients that are not added up yet."""
    if not together(learn):
        return {}
    apart = learn.parallel is not None and not learn.parallel.require_backward_grad_sync
    grads = {i: p.grad.cpu() for i, p in enumerate(learn.model.parameters()) if p.grad is not None} if apart else {}
    return {"generators": gathered(rng_state()), "gradients": gathered(grads)}


def _take_own(learn: Any, run: dict[str, Any]) -> None:
    generators, gradients = run.get("generators", []), run.get("gradients", [])
    if rank() < len(generators):
        set_rng_state(generators[rank()])
    if not any(gradients):
        return
    for i, p in enumerate(learn.model.parameters()):
        if i in gradients[0]:   # for another number of processes: each has the mean, and so has the mean of them
            every = [held[i].to(p.device) for held in gradients]
            grad = every[rank()] if len(every) == world() else torch.stack(every).mean(0)
            p.grad = torch.empty_like(p).copy_(grad)


def say_where(learn: Any, path: Path, position: dict[str, Any], run: dict[str, Any], finished: bool) -> str:
    """Say that the run goes on, or that it is finished (a warning); returns where it goes on, in words."""
    where = f"epoch {position['epoch']} at batch {position['num_batch']}"
    before, now = len(run.get("generators", [0])), world()
    if finished:
        learn.stopped = f"before it began: {path} is a finished run"
        warnings.warn(f"{path} is a finished run: it is loaded, and nothing is trained. To begin again, delete it or "
                      "choose another name; to train on, Checkpoint(..., extend=True)")
    elif not learn.silent and not rank():   # not on standard output: there the table is as if nothing had happened
        say(f"{path} goes on in {where}" + ("" if before == now else (
            f", in {now} process{'es' * (now > 1)} after {before}: the numbers are right, but sums are rounded and "
            "dropout is drawn in another way")), sys.stderr)
    return where
