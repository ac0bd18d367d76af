"""A model whose parameters are spread over the processes: torch's `fully_shard`, and its files."""
from __future__ import annotations

import hashlib
import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .distributed import once, share_first
from .utils import map_tensors

__all__ = ["class_of", "is_sharded", "load_parts", "like", "save_parts", "shard_model", "synchronise_batch_norm",
           "whole"]


def is_sharded(t: Any) -> bool:
    """Whether this process holds only a part of the tensor."""
    return isinstance(t, Tensor) and hasattr(t, "full_tensor")


def whole(t: Tensor) -> Tensor:
    """The tensor as one process would have it; of one that is spread over processes all of them ask for it."""
    found: Tensor = t.full_tensor() if is_sharded(t) else t     # type: ignore[attr-defined]
    return found


def class_of(module: nn.Module) -> type:
    """The module's class; of one that is spread over processes the class that it was before."""
    return next(cls for cls in type(module).__mro__ if not cls.__name__.startswith("FSDP"))


def like(t: Any, other: Any) -> Any:
    """The tensor, which each process has whole, spread as `other` of the same shape is."""
    if not is_sharded(other) or not isinstance(t, Tensor) or is_sharded(t) or t.shape != other.shape:
        return t
    from torch.distributed.tensor import distribute_tensor
    return distribute_tensor(t.detach().to(other.device), other.device_mesh, other.placements)


def shard_model(learn: Any) -> None:
    """Spread the parameters over the processes: those of each child of the model together, from process 0's values."""
    from torch.distributed.fsdp import fully_shard
    model = learn.model
    for t in (*model.parameters(), *model.buffers()):
        t.data = t.data.contiguous()    # other memory layouts are not supported there
    for dtype in {t.dtype for t in model.state_dict().values()}:
        share_first([t for t in model.state_dict().values() if t.dtype == dtype])
    children = [m for child in model.children() for m in (
        child.children() if isinstance(child, (nn.ModuleList, nn.ModuleDict)) else [child])]
    for module in (*children, model):
        if any(True for _ in module.parameters()):
            fully_shard(module)
    learn.opt = None    # the parameters are others now


def synchronise_batch_norm(learn: Any) -> None:
    """Let batch norm take its statistics over the whole batch. ValueError on the CPU, for which torch has no such
    layers, and where the model has been cut into layer groups."""
    if learn.data.device.type == "cpu":
        raise ValueError("sync_bn=True needs GPUs: torch has no batch norm over several processes for the CPU")
    if len(learn.layer_groups) > 1:
        raise ValueError("sync_bn=True puts other layers in the model: call to_distributed before split")
    learn.model = nn.SyncBatchNorm.convert_sync_batchnorm(learn.model)  # type: ignore[no-untyped-call]
    learn.layer_groups = None


def save_parts(learn: Any, run: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write the tensors that are spread over processes to a folder beside `path`, by torch.distributed.checkpoint;
    returns the run with an empty tensor in the place of each, and the folder's name."""
    parts: dict[str, Tensor] = {}

    def out(t: Tensor) -> Tensor:
        if not is_sharded(t):
            return t
        parts[str(len(parts))] = t.detach()
        return torch.empty(t.shape, dtype=t.dtype, device="meta")

    run = map_tensors(run, out)
    if not parts:
        return run
    from torch.distributed.checkpoint.state_dict_saver import save
    name = once(learn, lambda: uuid.uuid4().hex)
    folder = path.with_suffix(".parts") / name
    save(parts, checkpoint_id=folder)

    def seal() -> str:
        others = sorted(folder.parent.iterdir(), key=lambda p: p.stat().st_mtime)
        for old in others[:-3]:     # this one, that of the file, and that of the file before it
            shutil.rmtree(old)
        return hashlib.sha256((folder / ".metadata").read_bytes()).hexdigest()
    return {**run, "folder": [name, once(learn, seal)]}


def load_parts(learn: Any, run: dict[str, Any], path: Path) -> dict[str, Any]:
    """The run with the tensors that `save_parts` has written, spread as this learner's model is, or whole in one
    process. ValueError if the folder is not the one that belongs to the run."""
    if "folder" not in run:
        return run
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.tensor import zeros
    name, seal = run["folder"]
    folder = path.with_suffix(".parts") / name
    if not (folder / ".metadata").is_file() or hashlib.sha256((folder / ".metadata").read_bytes()).hexdigest() != seal:
        raise ValueError(f"{path} needs the folder {folder}, which is missing or damaged")
    model: Any = next((p for p in learn.model.parameters() if is_sharded(p)), None)
    parts: dict[str, Tensor] = {}

    def target(t: Tensor) -> Tensor:
        if not t.is_meta:
            return t
        key = str(len(parts))
        parts[key] = (torch.zeros(t.shape, dtype=t.dtype, device=learn.data.device) if model is None else
                      zeros(*t.shape, dtype=t.dtype, device_mesh=model.device_mesh, placements=model.placements))
        return parts[key]

    run = map_tensors({key: value for key, value in run.items() if key != "folder"}, target)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # it says so of one process
        load(parts, checkpoint_id=folder, no_dist=model is None)
    return run
