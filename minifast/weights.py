"""A model's file: what `learn.save` writes and `learn.load` takes."""
from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from .checks import short
from .device_loader import concrete_device
from .distributed import once
from .files import RUN, load_file, save_file
from .sharded import is_sharded, like, load_parts, whole
from .utils import is_plain, map_tensors, params_of, tensors_in

__all__ = ["load_weights", "misfit", "save_weights"]


def save_weights(learn: Any, path: Path, with_opt: bool = True) -> Path:
    """Write the learner's weights, what they rely on in the data (`DataBunch.prepares`), and with `with_opt` the
    optimizer state, to `path`; returns it. Of several processes the first one writes."""
    state: dict[str, Any] = {"model": learn.model.state_dict()}
    if is_plain(prepares := learn.data.prepares):
        state["prepares"] = prepares
    if with_opt and learn.has_opt:
        state["opt"] = learn.opt.state_dict()
    state = map_tensors(state, whole)
    once(learn, lambda: save_file(state, path), shared=False)
    return path


def load_weights(learn: Any, path: Path, device: Any = None, strict: bool = True, with_opt: bool = True) -> None:
    """Read what `save_weights` wrote, or a bare state dict, into the learner.

    `device`: where the file's tensors go first (default: the data's device). `strict`: all weights must be there and no
    others. `with_opt`: with the optimizer's state, if the file has it and it fits; if it does not, a warning says so.
    Of a run's checkpoint the weights are taken. If the weights do not fit, a RuntimeError says what, ValueError for a
    file that holds none; nothing is loaded then. A warning says so if the learner's data is prepared in another way
    than the file's was.
    """
    if not path.is_file() and path.with_suffix("").suffix == ".ckpt":
        path = path.with_suffix("")     # of a run
    state = load_file(path, learn.data.device if device is None else concrete_device(device))
    if isinstance(state, dict) and state.get("what") == RUN:
        state = {"model": _of_run(load_parts(learn, state, path), path)}
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no weights: there is a {type(state).__name__} in it")
    ours = {"model"} <= set(state) <= {"model", "opt", "prepares", "classes"}
    model, opt = (state["model"], state.get("opt")) if ours else (state, None)
    if not isinstance(model, dict) or not all(isinstance(name, str) for name in model):
        raise ValueError(f"{path} holds no weights by name")
    # older files name the classes alone
    then = state.get("prepares", {"classes": state["classes"]} if "classes" in state else {}) if ours else {}
    if not isinstance(then, dict) or not is_plain(then) or tensors_in(then):
        raise ValueError(f"{path} is damaged: its field 'prepares' is {short(then)}, not a dict of plain values")
    before = copy.deepcopy(own := learn.model.state_dict())
    try:
        learn.model.load_state_dict({name: like(t, own.get(name)) for name, t in model.items()}, strict=strict)
    except Exception as e:
        learn.model.load_state_dict(before)  # torch has loaded what did fit
        if isinstance(e, RuntimeError) and (why := misfit(learn.model, model)):
            raise RuntimeError(f"{path} does not fit the model, so nothing is loaded from it: {why}") from None
        e.add_note(f"nothing is loaded from {path}")
        raise
    if opt is not None and with_opt:
        _load_opt(learn, opt, path)
    for difference in _differences(then, learn.data.prepares):
        warnings.warn(f"{path} was saved with {difference}")


def _of_run(run: dict[str, Any], path: Path) -> Any:
    try:
        return run["learner"]["model"]["weights"]
    except (KeyError, TypeError):
        raise ValueError(f"{path} is a checkpoint without weights: it is damaged, or of another version") from None


def _load_opt(learn: Any, opt: Any, path: Path) -> None:
    before = copy.deepcopy(learn.opt.state_dict())
    params = params_of(learn)
    try:
        if any(map(is_sharded, params)):
            opt = {**opt, "state": {i: {key: like(t, params[i]) for key, t in held.items()}
                                    for i, held in opt["state"].items()}}
        learn.opt.load_state_dict(opt)
    except Exception as e:  # whatever is in the file
        learn.opt.load_state_dict(before)
        warnings.warn(f"the weights of {path} are loaded, and the optimizer's state in it is left out, because it does "
                      f"not fit: {e}")


def _differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    found = []
    classes = now["classes"]
    if classes is not None and then.get("classes", classes) != classes:
        found.append(f"the classes {then['classes']}, and this data has {classes}: the outputs still mean those of the "
                     "file")
    others = {key: value for key, value in then.items() if key != "classes" and value != now.get(key)}
    if others:
        before, after = (", ".join(f"{key} {values.get(key)}" for key in others) for values in (then, now))
        found.append(f"pictures prepared in another way ({before}) than this data's ({after}), so its predictions are "
                     "others. data.normalize((mean, std)) and size= prepare them alike")
    return found


def misfit(model: nn.Module, state: dict[str, Any]) -> str:
    """What of a state dict does not fit `model`, in short, and what to do; an empty string if all fits."""
    own = model.state_dict()
    shapes = {name: [tuple(getattr(s[name], "shape", ())) for s in (state, own)] for name in own if name in state}
    others = [f"{name}: {saved} in the file, {now} in the model" for name, (saved, now) in shapes.items()
              if saved != now]
    parts = [("of the model's weights are missing", [name for name in own if name not in state], ", "),
             ("are not in the model", [str(name) for name in state if name not in own], ", "),
             ("have other shapes", others, "; ")]
    found = [f"{len(names)} {what} ({comma.join([*names[:3], *(['...'] if len(names) > 3 else [])])})"
             for what, names, comma in parts if names]
    if not found:
        return ""
    rest = f", or load the {len(shapes)} that fit with strict=False" if shapes and not others else ""
    return f"{'; '.join(found)}. Make the learner with the model that was saved{rest}"
