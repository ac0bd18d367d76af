"""A U-Net over a known network: its form, what it learns, and its file."""
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from minifast.vision import *
from minifast.vision.backbones import backbone


def boxes(folder, n=16, size=48):
    """Noisy pictures with a bright box each, and their masks."""
    draw = np.random.default_rng(0)
    for i in range(n):
        mask = np.zeros((size, size), np.uint8)
        top, left = draw.integers(0, size // 2, 2)
        mask[top:top + size // 2, left:left + size // 2] = 1
        picture = draw.integers(0, 90, (size, size, 3)) + 120 * mask[..., None]
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{i}.jpg")
        Image.fromarray(mask).save(folder / f"{i}_mask.png")
    return (SegmentationItemList.from_folder(folder, extensions=".jpg").split_by_idx([0, 1, 2, 3])
            .label_from_func(lambda file: file.with_name(f"{file.stem}_mask.png"), classes=["back", "box"])
            .transform(get_transforms(), size=size).databunch(bs=4, device="cpu", seed=0).normalize(imagenet_stats))


@pytest.mark.parametrize(("name", "channels"), [
    ("resnet18", [256, 128, 64, 64, 3]), ("vgg11_bn", [512, 512, 256, 128, 64, 3]),
    ("mobilenet_v3_small", [48, 24, 16, 16, 3]), ("densenet121", [1024, 512, 256, 64, 3]),
    ("convnext_tiny", [384, 192, 96, 3])])
def test_it_is_cut_where_the_map_becomes_smaller(name, channels):
    unet = DynamicUnet(create_body(getattr(models, name), False), 2).eval()
    assert [block.norm.num_features for block in unet.up] == channels
    for size in ((64, 64), (72, 100)):      # also those that cannot be halved
        assert unet(torch.rand(2, 3, *size)).shape == (2, 2, *size)


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t"])
def test_networks_without_such_maps_are_refused(name):
    with pytest.raises(ValueError, match="a U-Net needs"):
        DynamicUnet(backbone(getattr(models, name), False).body, 2)
    with pytest.raises(ValueError, match="smaller in several steps; the maps .*3, 64, 64"):
        DynamicUnet(nn.Sequential(nn.Conv2d(3, 4, 3, 2)), 2, (64, 64))


def test_it_learns_masks_and_goes_into_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    learn = unet_learner(boxes(tmp_path), models.resnet18, pretrained=False, metrics=dice, silent=True)
    learn.fit_one_cycle(8, 5e-3)
    preds, masks = learn.get_preds()
    assert preds.shape == (4, 2, 48, 48) and float((preds.argmax(1) == masks).float().mean()) > 0.93
    learn.show_results(rows=2)
    loaded = load_learner(learn.export("boxes.mf"))
    assert torch.equal(loaded.predict("0.jpg")[2], learn.predict("0.jpg")[2])


def test_a_trained_way_down_is_frozen(tmp_path):
    learn = unet_learner(boxes(tmp_path, 8), models.resnet18(weights=None), silent=True)
    trained = [any(p.requires_grad for p in g.parameters() if p.ndim > 1) for g in learn.layer_groups]
    assert trained == [False, False, True]
    assert next(learn.layer_groups[2].parameters()) is learn.model.middle[0].weight
    learn.fit(1)
    learn.unfreeze()
    learn.fit(1, slice(1e-5, 1e-3))
