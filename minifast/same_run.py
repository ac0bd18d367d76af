"""What belongs to a run: whether one can be the continuation of another."""
from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Subset

from .callback import Callback, role_of
from .checks import did_you_mean
from .data_objects import named_loaders
from .kinds import FUNCTIONS, OBJECT, PLAIN, described, fields, kind_of, of_library
from .sharded import class_of
from .snapshot import plain
from .state import State

__all__ = ["LENGTH", "arguments_of", "check_allowed", "described_with", "differences", "in_words", "named", "of_data",
           "settings", "shapes_training", "without_curves"]

LENGTH = ("number of epochs", "optimizer steps")
HOW_FAST = {"params", "layer_group", "foreach", "fused", "capturable", "differentiable", "initial_lr", "decays"}
CURVE = "its curve of "
DEEP = 8
ROWS = 16   # of a tensor, an array or a list that stand for all


def named(handler: Any) -> dict[str, Callback]:
    """The run's callbacks and metrics by name: the class, numbered from the second one of a class on."""
    seen: Counter[str] = Counter()

    def names(callbacks: Iterable[Callback], kind: str) -> Iterable[tuple[str, Callback]]:
        for cb in callbacks:
            name = kind + type(cb).__name__
            seen[name] += 1
            yield (name if seen[name] == 1 else f"{name} {seen[name]}"), cb
    return dict([*names(handler.callbacks, ""), *names(handler.metrics, "metric ")])


def shapes_training(cb: Callback | type[Callback]) -> bool:
    """Whether it is part of the training itself: a run that goes on must have it with equal settings."""
    return role_of(cb) in ("training", "fit")


def settings(learn: Any) -> dict[str, Any]:
    """What a run must have in common with the one that it continues, by name, in plain values."""
    s: State = learn.handler.state
    found = {"number of epochs": s.n_epochs, "optimizer steps": s.n_updates,
             "batches in an epoch": len(learn.data.train_dl), "batch size": learn.data.batch_size,
             "metrics": s.metrics_names, "optimizer": learn.opt.name, "true_wd": learn.opt.true_wd,
             **_hyper_parameters(learn.opt.opt.param_groups), "loss function": described_with(learn.loss_func),
             "model": model_lines(learn.model),
             "frozen parameters": [n for n, p in learn.model.named_parameters() if not p.requires_grad]}
    for name, dl in named_loaders(learn.data).items():
        if name in ("training", "validation"):
            found |= {f"{name} data": "there", **of_data(name, dl)}
    if (sampler := getattr(learn.data.train_dl.dl, "sampler", None)) is not None:
        found["sampler"] = in_words(sampler)
    for name, cb in named(learn.handler).items():
        if shapes_training(cb) and getattr(cb, "compared", True):
            found[name] = {**arguments_of(cb, without=("learn", "seed")), **_curves(cb, s)}
    return plain(found)  # type: ignore[no-any-return]


def of_data(name: str, dl: Any) -> dict[str, Any]:
    """What two loaders must have in common to be of the same samples, by name, in plain values."""
    return {f"{name} samples": _length(dl.dataset),
            f"{name} data's content (a random part needs seed=)": fingerprint(
                dl.dl if dl.dataset is None else dl.dataset),
            f"transforms of {name} batches": [described_with(tfm) for tfm in dl.tfms]}


def _hyper_parameters(groups: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(key for g in groups for key in g if key not in HOW_FAST)
    found = {name: [in_words(g.get(name)) for g in groups] for name in names}
    return {**found, "bn_wd (which parameters decay)": [[len(g["params"]), g.get("decays")] for g in groups]}


def _curves(cb: Any, s: State) -> dict[str, list[str]]:
    """The values of a schedule's plan at five points: of a new plan, because some only go forward."""
    if "n_planned" not in vars(cb) or not callable(getattr(cb, "plan", None)) or not s.n_epochs:
        return {}
    n = cb.n_planned
    n_epochs = getattr(cb, "tot_epochs", None) or s.n_epochs
    plan = cb.plan(s.n_updates * n_epochs // s.n_epochs, n_epochs)
    return {f"{CURVE}{name}": [in_words(schedule(i)) for i in sorted({0, n // 4, n // 2, 3 * n // 4, n - 1})]
            for name, schedule in plan.items()}


def model_lines(model: nn.Module) -> list[str]:
    """A line for each module: its name, class and arguments, and the shapes of its own parameters."""
    return [_module_line(name, m) for name, m in model.named_modules()]


def _module_line(name: str, m: nn.Module) -> str:
    cls = class_of(m)
    own = [f"{n} {tuple(p.shape)}" for n, p in m.named_parameters(recurse=False)
           if not nn.parameter.is_lazy(p) and not cls.__module__.startswith("torch.nn")]
    settings_shown = [] if cls.__module__.startswith("torch.") else [
        f"{key}={value}" for key, value in arguments_of(m).items() if value not in ("", None)]
    try:
        extra = m.extra_repr()
    except Exception:   # of a user's own class, and only for looking at
        extra = ""
    parts = [part for part in (extra, *settings_shown, *own) if part]
    return f"{name or 'the model'}: {cls.__name__}({', '.join(parts)})"


def described_with(x: Any, depth: int = 0) -> str:
    """A loss function, a transform or the like with its arguments, in a line without addresses."""
    if isinstance(x, partial):
        return f"{described_with(x.func, depth + 1)} with {in_words([list(x.args), x.keywords], depth + 1)}"
    if isinstance(x, FunctionType) and not of_library(x.__module__):
        return f"{described(x)} (code {_hash(_code(x.__code__))})"
    if isinstance(x, FUNCTIONS) or isinstance(x, type) or not hasattr(x, "__dict__"):
        return described(x)
    return f"{type(x).__name__}({', '.join(f'{k}={v}' for k, v in arguments_of(x, (), depth).items())})"


def _code(code: CodeType) -> str:
    """What a function does, without names of files and numbers of lines."""
    inner = [_code(c) if isinstance(c, CodeType) else repr(sorted(c, key=repr) if isinstance(c, frozenset) else c)
             for c in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, inner))


def arguments_of(x: Any, without: Sequence[str] = (), depth: int = 0) -> dict[str, Any]:
    """The arguments of an object's class, where it has attributes of their names, in words."""
    try:
        names = [name for name in inspect.signature(type(x)).parameters if name not in without]
    except (TypeError, ValueError):     # a class of C's
        return {}
    return {name: in_words(getattr(x, name), depth + 1) for name in names
            if name in vars(x) or isinstance(x, nn.Module) and hasattr(x, name)}


def in_words(x: Any, depth: int = 0) -> Any:
    """`x` in plain values, short: a number or a text itself, a large thing as a fingerprint. `depth`: within how many
    other things it is; something that holds itself has no end."""
    if depth > DEEP:
        return type(x).__name__
    depth += 1
    if isinstance(x, (np.generic, Tensor)) and getattr(x, "ndim", 1) == 0:
        x = x.item()
    if type(x) is float:
        return float(f"{x:.9g}")    # the last digits may be another machine's
    if isinstance(x, bytes):
        return _hash(x)
    if type(x) in PLAIN:
        return x if not isinstance(x, str) or len(x) < 100 else _hash(x)
    if isinstance(x, (Tensor, np.ndarray)):
        return [in_words(v, depth) for v in x.ravel().tolist()] if len(x) <= 8 and x.ndim == 1 else fingerprint(x)
    if isinstance(x, (list, tuple)):
        return [in_words(v, depth) for v in x] if len(x) <= 20 else _hash(repr([in_words(v, depth) for v in x]))
    if isinstance(x, Mapping):
        return {str(key): in_words(v, depth) for key, v in x.items()}
    return f"{type(x).__name__} with {len(list(x.parameters()))} parameters" if isinstance(x, nn.Module) \
        else described_with(x, depth)


def fingerprint(x: Any) -> str:
    """Eight letters that are others for other data: of shapes and a fixed sample of the rows of tensors, arrays and
    lists. No item of a data set is computed."""
    return _hash("\n".join(_traits(x, 0)))


def _traits(x: Any, depth: int) -> list[str]:
    rows: Any
    data: Any
    if depth > DEEP:
        return [type(x).__name__]
    if isinstance(x, Tensor) and (x.layout is not torch.strided or x.is_nested or x.is_quantized or x.is_meta):
        return [f"{x.dtype} {x.layout}"]    # without rows to take
    if isinstance(x, Tensor):
        rows = x[_spread(len(x))] if x.ndim and x.numel() else x
        data = rows.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy() if rows.numel() else b""
        return [f"{x.dtype} {tuple(x.shape)}", _hash(bytes(data))]
    if isinstance(x, np.ndarray):
        rows = x[_spread(len(x))] if x.ndim and x.size else x
        return [f"{x.dtype} {x.shape}", _hash(repr(rows.tolist()) if x.dtype.hasobject else rows.tobytes())]
    if isinstance(x, Subset):
        return [*_traits(np.asarray(x.indices), depth), *_all_rows(x.indices), *_traits(x.dataset, depth + 1)]
    if isinstance(x, ConcatDataset):
        return [trait for part in x.datasets for trait in _traits(part, depth + 1)]
    if isinstance(x, (str, bytes, Path)):
        return ["/".join(x.parts[-2:]) if isinstance(x, Path) else str(x)]
    if isinstance(x, (list, tuple)):
        if all(isinstance(v, (str, Path, int)) for v in x):
            return [f"{len(x)}", _hash("\n".join(trait for v in x for trait in _traits(v, depth)))]
        return [f"{len(x)}", *(trait for i in _spread(len(x)) for trait in _traits(x[i], depth + 1))]
    if type(x) in PLAIN:
        return [repr(x)]
    held = fields(x) if depth < 4 and kind_of(x) is OBJECT and not isinstance(x, nn.Module) else {}
    data = {key: v for key, v in held.items() if isinstance(v, (Tensor, np.ndarray, list, tuple, Subset))
            or hasattr(v, "__getitem__") and kind_of(v) is OBJECT}
    return [type(x).__name__, *(trait for key, v in sorted(data.items()) for trait in [key, *_traits(v, depth + 1)])]


def _all_rows(indices: Any) -> list[str]:
    return [_hash(np.asarray(indices).tobytes())]


def _spread(n: int) -> list[int]:
    return sorted({i * (n - 1) // max(1, ROWS - 1) for i in range(ROWS)}) if n else []


def _hash(x: str | bytes) -> str:
    return hashlib.sha256(x if isinstance(x, bytes) else x.encode(errors="replace")).hexdigest()[:8]


def _length(x: Any) -> int | None:
    try:
        return len(x)
    except TypeError:
        return None


def differences(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """Which of these settings differ, by name, in words.

    >>> differences({"lr": [0.1]}, {"lr": [0.2]})
    {'lr': 'lr: [0.1] then, [0.2] now'}
    """
    return {key: f"{key}: {_how(before.get(key), now.get(key))}" for key in {**before, **now}
            if before.get(key) != now.get(key)}


def _how(then: Any, now: Any) -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        return "; ".join(f"{key} {_short(then.get(key))} then, {_short(now.get(key))} now" for key in keys)
    if isinstance(then, list) and isinstance(now, list) and any(isinstance(v, str) for v in (*then, *now)):
        left, new = [v for v in then if v not in now], [v for v in now if v not in then]
        return f"{_few(left)} then, {_few(new)} now" if left or new else "the same in another order"
    if then is None or now is None:
        return f"{_there(then)} then, {_there(now)} now"
    return f"{_short(then)} then, {_short(now)} now"


def _few(lines: list[Any]) -> str:
    return ("; ".join(map(str, lines[:3])) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")) or "none"


def _there(x: Any) -> str:
    return "not there" if x is None else "there" if isinstance(x, dict) else _short(x)


def _short(x: Any) -> str:
    text = str(x)
    return text if len(text) <= 120 else f"{text[:110]}..."


def without_curves(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings except the curves of schedules, which are others in a run of another length."""
    return {name: {k: v for k, v in held.items() if not k.startswith(CURVE)} if isinstance(held, dict) else held
            for name, held in settings.items()}


def check_allowed(allow: Sequence[str], before: dict[str, Any], now: dict[str, Any]) -> None:
    """ValueError if a name in `allow` is not that of a setting."""
    names = {**before, **now}
    for name in allow:
        if name not in names:
            raise ValueError(f"a run has no setting {name!r} that could be allowed to change; there are "
                             f"{', '.join(names)}.{did_you_mean(name, names)}")
