"""The examples in the docstrings, run."""
import doctest
import importlib
import inspect
import os
import types
import warnings

import matplotlib.pyplot as plt
import pytest
from test_layout import MODULES

import minifast.fakes
import minifast.tabular
import minifast.vision

STARS = (minifast.vision, minifast.tabular, minifast.fakes)
NAMES = {name: getattr(module, name) for module in STARS for name in module.__all__}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def test_every_public_class_and_function_has_an_example():
    missing = []
    for name in {name for module in STARS for name in module.__all__}:
        thing = NAMES[name]
        if isinstance(thing, type | types.FunctionType) and thing.__module__.startswith("minifast"):
            methods = [m for m in vars(thing).values() if inspect.isfunction(m) or isinstance(m, classmethod)] if (
                isinstance(thing, type)) else []
            if not any(">>>" in (inspect.getdoc(x) or "") for x in (thing, *methods)):
                missing.append(f"{thing.__module__}.{name}")
    assert sorted(missing) == []


@pytest.mark.parametrize("name", [n for n in MODULES if n not in ("__main__", "bundled.build_mnist_sample")])
def test_the_examples_run(name, tmp_path, monkeypatch):
    module = importlib.import_module(f"minifast.{name}".removesuffix("."))
    monkeypatch.chdir(tmp_path)
    failed = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=NAMES):
        if not test.examples:
            continue
        folder = tmp_path / test.name
        folder.mkdir()
        os.chdir(folder)    # each example in an empty folder of its own
        lines: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=lines.append)
        plt.close("all")
        failed += ["".join(lines)] if result.failed else []
    assert failed == []
