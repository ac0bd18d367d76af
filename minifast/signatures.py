"""What a callback's handlers are and which fields they read: found once, when a run begins."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from .checks import did_you_mean
from .state import EVENTS, Changes, State

__all__ = ["Listener", "Listeners", "check_callback", "listeners"]

# a callback, one of its handlers, and what takes the handler's arguments from the state's fields (None: it has none)
Read = Callable[[dict[str, Any]], tuple[Any, ...]]
Listener = tuple[Any, Callable[..., Changes | None], Read | None]
Listeners = dict[str, list[Listener]]
ROLES = ("training", "fit", "watching", "process")


def check_callback(callback: Any, base: type) -> None:
    """TypeError unless `callback` is an instance of `base` with a known role, whose `on_...` methods are events."""
    if not isinstance(callback, base):
        what = f"the class {callback.__name__}: make an instance" if isinstance(callback, type) else repr(callback)
        raise TypeError(f"a callback must be an instance of Callback, not {what}")
    name, role = type(callback).__name__, getattr(callback, "role", None)
    if role not in ROLES:
        raise TypeError(f"{name}.role must be one of {', '.join(ROLES)}, not {role!r}")
    known = [f"on_{event}" for event in EVENTS]
    for method in dir(callback):
        if method.startswith("on_") and method not in known and callable(getattr(callback, method)):
            raise TypeError(f"{name}.{method} is no event."
                            + (did_you_mean(method, known) or f" The events are {', '.join(known)}."))


def listeners(callbacks: Sequence[Any], base: type) -> Listeners:
    """For each event, in the callbacks' order, the handlers that override the one of `base`."""
    return {event: [found for cb in callbacks if (found := _listener(cb, event, base)) is not None] for event in EVENTS}


def _listener(callback: Any, event: str, base: type) -> Listener | None:
    handler = getattr(callback, f"on_{event}")
    if getattr(handler, "__func__", None) is getattr(base, f"on_{event}"):
        return None
    params = inspect.signature(handler).parameters.values()
    names = tuple(p.name for p in params if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
    for name in names:
        if name not in State.__dataclass_fields__:
            raise TypeError(f"{type(callback).__name__}.on_{event} reads {name!r}, which the state does not have."
                            + did_you_mean(name, State.__dataclass_fields__))
    if any(p.kind is p.VAR_KEYWORD for p in params):
        return callback, lambda fields: handler(**fields), lambda fields: (fields,)
    if hasattr(handler, "__wrapped__") or any(p.kind is p.KEYWORD_ONLY for p in params):    # these want the names
        return callback, lambda fields: handler(**{n: fields[n] for n in names}), lambda fields: (fields,)
    return callback, handler, _reader(names)    # by position: half the time that keywords take


def _reader(names: tuple[str, ...]) -> Read | None:
    if len(names) > 1:
        return itemgetter(*names)
    return (lambda fields: (fields[names[0]],)) if names else None
