"""A learner's model as an ONNX file, for other programs."""
from __future__ import annotations

import importlib
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .disk import whole_file
from .torch_private import uncompiled
from .tracing import Flat, repeated
from .utils import run_model, tensors_in

__all__ = ["write_onnx"]

NEEDED = ("onnx", "onnxscript", "onnxruntime")


def write_onnx(learn: Any, path: Path, x: Any, content: dict[str, Any]) -> Path:
    """Write the learner's model, in eval mode and for batches of any length, to an ONNX file.

    x: a batch of inputs.
    content: what is said of the learner, in plain values: the file's metadata, as JSON under "minifast".

    ImportError where what it needs is not installed. ValueError if the model cannot be exported, or onnxruntime
    computes something else of its file; nothing is written then.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ImportError(f"format='onnx' needs {', '.join(missing)}: pip install minifast[onnx]")
    onnxruntime = importlib.import_module("onnxruntime")
    model: nn.Module = learn.model
    flags = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        rows = repeated(x)
        whole = Flat(model, x).eval()
        names = [f"input{i}" for i in range(len(rows))]
        shapes = ({0: torch.export.Dim("batch")},) * len(rows)
        with torch.no_grad(), uncompiled(model), tempfile.TemporaryDirectory() as folder:
            outputs = [f"output{i}" for i in range(len(tensors_in(run_model(model, x))))]
            try:
                made: Any = torch.onnx.export(whole, tuple(rows), dynamo=True, input_names=names,
                                              output_names=outputs, dynamic_shapes={"tensors": shapes}, verbose=False)
            except Exception as e:  # it has dozens of ways to say no
                raise ValueError(f"the model cannot be exported to ONNX: {type(e).__name__}: {str(e)[:300]}") from e
            made.model.metadata_props["minifast"] = json.dumps({k: v for k, v in content.items() if k != "what"})
            file = Path(folder) / "model.onnx"
            made.save(file, external_data=False)
            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            for n in (1, len(rows[0])):
                some = [t[:n] for t in rows]
                found = session.run(None, {name: t.cpu().numpy() for name, t in zip(names, some, strict=True)})
                expected = whole(*some)
                for a, b in zip(found, expected, strict=True):
                    b = b.cpu().double()
                    if not torch.allclose(torch.from_numpy(a).double(), b, rtol=1e-3, atol=1e-3 * float(b.abs().max())):
                        raise ValueError(f"nothing is written to {path}: onnxruntime computes something else of the "
                                         "file than the model does")
            with whole_file(path) as out:
                out.write(file.read_bytes())
    finally:
        for m, training in flags:
            m.training = training
    return path
