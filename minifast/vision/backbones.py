"""Networks without their last layers: where torchvision's families are cut, how they split, and their weights."""
from __future__ import annotations

import copy
import hashlib
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import short
from ..layers import AdaptiveConcatPool2d

__all__ = ["Backbone", "backbone", "create_body", "features_of"]

Stats = tuple[Sequence[float], Sequence[float]]     # means and standard deviations, of pixels in [0, 1]

SIZES = (64, 128, 224, 299)     # of a picture to try a network with: some take no small ones, some one size only


@dataclass(frozen=True)
class Rule:
    """How one family is cut.

    cut: how many children are kept, as in `children[:cut]`.
    groups: where the second layer group begins, the third one, ...: paths in the body; the head begins a further one.
    without: children that are left out, by name.
    """

    cut: int
    groups: tuple[str, ...]
    without: tuple[str, ...] = ()


# by torchvision's class; the first six are fastai v1's own cuts and groups
RULES = {
    "ResNet": Rule(-2, ("6",)),     # ResNeXt and wide ResNets too
    "SqueezeNet": Rule(-1, ("0.5", "0.8")),
    "DenseNet": Rule(-1, ("0.7",)),
    "VGG": Rule(-1, ("0.22",)),
    "AlexNet": Rule(-1, ("0.6",)),
    "MobileNetV2": Rule(-1, ("0.10",)),
    "MobileNetV3": Rule(-2, ("0.7",)),
    "MNASNet": Rule(-1, ("0.11",)),
    "ShuffleNetV2": Rule(-1, ("3",)),
    "EfficientNet": Rule(-2, ("0.5",)),
    "RegNet": Rule(-2, ("1.2",)),
    "ConvNeXt": Rule(-2, ("0.4",)),
    "GoogLeNet": Rule(-3, ("8",), without=("aux1", "aux2")),
    "Inception3": Rule(-3, ("10",), without=("AuxLogits",)),
    "SwinTransformer": Rule(-3, ("0.4",)),
    "MaxVit": Rule(-1, ("1.2",)),
    "VisionTransformer": Rule(0, ()),   # it is kept whole, see `_whole`
}
POOLS = (AdaptiveConcatPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)


@dataclass
class Backbone:
    """A network without its last layers, and what is known of it.

    body: (n, 3, h, w) to (n, channels, h', w').
    groups: the modules at which its second layer group begins, its third one, ...
    stats: how the pictures were normalised that its weights have seen; None: not known, or it has seen none.
    pooled: whether what it returns is the mean of a picture already, (n, channels, 1, 1).
    """

    body: nn.Module
    groups: list[nn.Module]
    stats: Stats | None
    pooled: bool = False


class AsMap(nn.Module):
    """(n, channels) to (n, channels, 1, 1).

    >>> AsMap()(torch.ones(2, 3)).shape
    torch.Size([2, 3, 1, 1])
    """

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, None, None]


class FromImagenet(nn.Module):
    """Pictures that are normalised by ImageNet's means and deviations, as those that are normalised by 0.5 and 0.5:
    what torchvision's GoogLeNet and Inception do before their first layer.

    >>> FromImagenet()(torch.zeros(1, 3, 1, 1)).flatten().round(decimals=3)
    tensor([-0.0300, -0.0880, -0.1880])
    """

    def forward(self, x: Tensor) -> Tensor:
        std, mean = (x.new_tensor(values).view(3, 1, 1) for values in ((0.229, 0.224, 0.225), (0.485, 0.456, 0.406)))
        return x * (std / 0.5) + (mean - 0.5) / 0.5


class _Features(nn.Module):
    """What `forward_features` of a model returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(x)   # type: ignore[operator]
        return features


def create_body(arch: Any, pretrained: Any = True, cut: int | Callable[[nn.Module], nn.Module] | None = None
                ) -> nn.Module:
    """A network without its last layers: pictures (n, 3, h, w) to features (n, channels, h', w').

    arch: a function of torchvision such as `models.resnet34`, or a model, which is copied.
    pretrained: True: with torchvision's weights, from its folder of downloads or the network; a name of weights
        ("IMAGENET1K_V1"): these; False: untrained. Of a model that is given it says whether it has been trained.
    cut: so many of its children are kept, as in `children[:cut]`; or a function of the model that returns the body;
        None: torchvision's classifiers are cut where their features end, models with timm's `forward_features` give
        these, and others are cut before the last child that contains a pooling layer.

    ConnectionError if weights cannot be downloaded, ValueError if their file is damaged or a model cannot be cut.

    >>> body = create_body(models.resnet18, pretrained=False)
    >>> body(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 512, 2, 2])
    """
    return backbone(arch, pretrained, cut).body


def backbone(arch: Any, pretrained: Any = True, cut: Any = None) -> Backbone:
    """`create_body`, with what else is known of the network."""
    model = made(arch, pretrained)
    stats = _stats(arch, model, pretrained) if pretrained else None
    if callable(cut):
        return Backbone(_module(cut(model), "cut"), [], stats)
    if cut is not None:
        return Backbone(nn.Sequential(*list(model.children())[:cut]), [], stats)
    family = next((c.__name__ for c in type(model).__mro__ if c.__module__.startswith("torchvision.models.")
                   and c.__name__ in RULES), None)
    if family == "VisionTransformer":
        return _whole(model, stats)
    if family is not None:
        return _by_rule(model, RULES[family], stats)
    if hasattr(model, "forward_features"):
        return _of_timm(model, stats)
    pooling = [i for i, child in enumerate(model.children()) if any(isinstance(m, POOLS) for m in child.modules())]
    if not pooling or not pooling[-1]:
        raise ValueError(f"it is not known where to cut a {type(model).__name__}: no child but the first contains a "
                         "pooling layer. Give cut=, the number of children to keep, or a function of the model that "
                         "returns its body")
    return Backbone(nn.Sequential(*list(model.children())[:pooling[-1]]), [], stats)


def _by_rule(model: nn.Module, rule: Rule, stats: Stats | None) -> Backbone:
    names = [name for name, _ in model.named_children() if name not in rule.without]
    children = [model.get_submodule(name) for name in names[:rule.cut]]
    body = nn.Sequential(*(nn.Sequential(*m) if isinstance(m, nn.ModuleList) else m for m in children))
    groups = []
    for path in rule.groups:
        *outer, last = path.split(".")
        holder: Any = body.get_submodule(".".join(outer))
        # networks of few layers, such as VGG11 without batch norm, are split in their middle
        groups.append(holder[int(last) if int(last) < len(holder) else len(holder) // 2])
    if getattr(model, "transform_input", False):
        body = nn.Sequential(FromImagenet(), *body)
    return Backbone(body, groups, stats)


def _whole(model: Any, stats: Stats | None) -> Backbone:
    """torchvision's vision transformers: their features are those of the class token, after all layers."""
    model.heads = nn.Identity()
    layers = model.encoder.layers
    return Backbone(nn.Sequential(model, AsMap()), [layers[len(layers) // 2]], stats, pooled=True)


def _of_timm(model: Any, stats: Stats | None) -> Backbone:
    """Models with timm's interface: their map of features, where they have one, else their pooled features."""
    if hasattr(model, "reset_classifier"):
        model.reset_classifier(0)
    features = _Features(model)
    found = features_of(features)
    if found.ndim == 4 and found.shape[1] == getattr(model, "num_features", found.shape[1]):
        return Backbone(features, [], stats)
    if not hasattr(model, "reset_classifier"):
        raise ValueError(f"forward_features of this {type(model).__name__} returns {tuple(found.shape)}, which is no "
                         "map (n, channels, h, w), and it has no reset_classifier to get at its pooled features: give "
                         "cut=, a function of the model that returns its body")
    return Backbone(nn.Sequential(model, AsMap()), [], stats, pooled=True)


def features_of(body: nn.Module, size: Sequence[int] | None = None) -> Tensor:
    """What a body returns for one picture, in eval mode, without gradients; `size`: of the picture, default the first
    of `SIZES` that it can take. Modes are as before afterwards."""
    flags = [(m, m.training) for m in body.modules()]
    body.eval()
    device = next((p.device for p in body.parameters()), torch.device("cpu"))
    sizes = [tuple(size)] if size is not None else [(n, n) for n in SIZES]
    try:
        with torch.no_grad():
            for h, w in sizes:
                try:
                    features: Tensor = body(torch.zeros(1, 3, h, w, device=device))
                    return features
                except Exception as e:  # models refuse a size in ways of their own
                    error = e
    finally:
        for m, training in flags:
            m.training = training
    said = ", ".join(f"{h}x{w}" for h, w in sizes)
    raise ValueError(f"the network takes no pictures of {said} (h x w): {type(error).__name__}: {error}") from error


def _module(made: Any, what: str) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise TypeError(f"{what} must return a torch.nn.Module, and returned {short(made)}")
    return made


# ---- the model itself, and its weights

def made(arch: Any, pretrained: Any) -> nn.Module:
    """A model of that architecture, see `create_body`."""
    if isinstance(arch, nn.Module):
        return copy.deepcopy(arch)
    if not callable(arch):
        raise TypeError(f"the architecture must be a function such as models.resnet34, or a model, not {short(arch)}")
    takes = inspect.signature(arch).parameters
    if "weights" not in takes:
        if "pretrained" in takes:
            return _module(arch(pretrained=bool(pretrained)), "the architecture")
        if pretrained:
            raise TypeError(f"{_name(arch)} takes no argument weights= or pretrained=: pass pretrained=False, or a "
                            "model that has its weights already")
        return _module(arch(), "the architecture")
    if not pretrained:
        # said, because torchvision warns where it is not
        options = {"init_weights": True} if _name(arch) in ("googlenet", "inception_v3") else {}
        return _module(arch(weights=None, **options), "the architecture")
    weights = _weights(arch, pretrained)
    if weights is None:
        return _module(arch(weights="DEFAULT" if pretrained is True else pretrained), "the architecture")
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    _check_file(file)
    try:
        return _module(arch(weights=weights), "the architecture")
    except OSError as e:    # URLError is one
        raise ConnectionError(f"the weights of {_name(arch)} cannot be had from {weights.url}: {e}. Without a network "
                              f"put that file at {file}, or pass pretrained=False") from e
    except RuntimeError as e:
        if "hash" not in str(e):
            raise
        raise ConnectionError(f"what came from {weights.url} is not the weights of {_name(arch)}: {e}. Try again, or "
                              f"put the file at {file}") from e


def _name(arch: Any) -> str:
    return str(getattr(arch, "__name__", arch))


def _weights(arch: Any, pretrained: Any) -> Any:
    """The member of torchvision's enumeration of the weights of `arch`; None where it has none of them."""
    annotation = inspect.get_annotations(arch, eval_str=True).get("weights")
    for kind in getattr(annotation, "__args__", (annotation,)):
        if isinstance(kind, type) and hasattr(kind, "get_state_dict"):
            known = [weights.name for weights in kind]  # type: ignore[attr-defined]
            name = "DEFAULT" if pretrained is True else str(pretrained).rsplit(".", 1)[-1]
            if name not in kind.__members__:    # type: ignore[attr-defined]
                raise ValueError(f"{_name(arch)} has no weights {name!r}; it has {', '.join(known)}")
            return kind[name]   # type: ignore[index]
    return None


def _check_file(file: Path) -> None:
    """ValueError if a file of weights is not the one that its name says: torch compares only what it downloads."""
    found = re.search(r"-([a-f0-9]{8,})\.", file.name)
    if found is None or not file.is_file():
        return
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if not digest.startswith(found[1]):
        raise ValueError(f"{file} is damaged or another file: its SHA-256 begins with {digest[:8]}, not {found[1]}. "
                         "Delete it, and it is downloaded again")


def _stats(arch: Any, model: nn.Module, pretrained: Any) -> Stats | None:
    """How the pictures were normalised that the weights have seen, where that is known."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if isinstance(config, dict) and "mean" in config and "std" in config:
        return tuple(config["mean"]), tuple(config["std"])
    weights = None if isinstance(arch, nn.Module) or "weights" not in inspect.signature(arch).parameters else _weights(
        arch, pretrained)
    transforms: Any = None if weights is None else weights.transforms()
    if not hasattr(transforms, "mean"):
        return None
    return tuple(transforms.mean), tuple(transforms.std)
