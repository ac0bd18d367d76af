"""Names and arguments that go away: they work on for a while, and a warning says what to use instead.

The policy: what has been in a release works on for at least two minor versions with a FutureWarning (which Python shows
to everyone), is listed under Deprecated in the changelog, and is removed in the version that the warning names.
"""
from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["deprecated", "renamed_arguments"]

F = TypeVar("F", bound=Callable[..., Any])


def deprecated(use: str, removed_in: str) -> Callable[[F], F]:
    """A decorator for a function or a method that goes away: each call warns.

    use: what to use instead.
    removed_in: the version of minifast without it.

    >>> @deprecated("new_name(x)", removed_in="0.4")
    ... def old_name(x): return x + 1
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always"); old_name(1)
    2
    >>> print(caught[0].message)
    old_name is deprecated and goes away in minifast 0.4: use new_name(x)
    """
    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            _warn(function.__qualname__.rpartition("<locals>.")[2], use, removed_in)
            return function(*args, **kwargs)
        return wrapper  # type: ignore[return-value]
    return decorate


def renamed_arguments(removed_in: str, **names: str) -> Callable[[F], F]:
    """A decorator for a function whose arguments have other names now: the old ones work on, and warn.

    removed_in: the version of minifast without the old names.
    names: the new name by the old one. ValueError if the function has no such new argument, or has the old one still.

    Giving both names is a TypeError in a call.

    >>> @renamed_arguments("0.4", lr="max_lr")
    ... def train(max_lr): return max_lr
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always"); train(lr=0.1)
    0.1
    >>> print(caught[0].message)
    train's argument lr is deprecated and goes away in minifast 0.4: use max_lr
    """
    def decorate(function: F) -> F:
        parameters = inspect.signature(function).parameters
        name = function.__qualname__.rpartition("<locals>.")[2]
        for old, new in names.items():
            if new not in parameters or old in parameters:
                raise ValueError(f"{name} must have an argument {new!r} and none {old!r}; it has {list(parameters)}")

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            for old in names.keys() & kwargs.keys():
                if names[old] in kwargs:
                    raise TypeError(f"{name} got {names[old]} twice, also by its old name {old}: leave {old} out")
                _warn(f"{name}'s argument {old}", names[old], removed_in)
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)
        return wrapper  # type: ignore[return-value]
    return decorate


def _warn(what: str, use: str, removed_in: str) -> None:
    warnings.warn(f"{what} is deprecated and goes away in minifast {removed_in}: use {use}", FutureWarning,
                  stacklevel=3)
