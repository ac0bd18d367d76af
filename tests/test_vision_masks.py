import numpy as np
import pytest
import torch
from pictures import picture
from PIL import Image
from torch import nn

from minifast.data import DatasetType
from minifast.learner import Learner
from minifast.vision.image_list import SegmentationItemList
from minifast.vision.masks import Masks, SegmentationLabelList
from minifast.vision.transform import get_transforms

N, CODES = 9, ["sky", "road", "car"]


def drawn(i, size=(12, 16)):
    return np.random.default_rng(i).integers(0, 3, size, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "im").mkdir()
    for i in range(N):
        # red is the class, so a mask can be compared with its picture wherever both have been moved
        Image.fromarray(np.stack([drawn(i) * 100] * 3, -1)).save(tmp_path / f"im/{i}.png")
        mask = Image.fromarray(drawn(i))
        if i % 2:
            mask = mask.convert("P")
            mask.putdata(drawn(i).flatten().tolist())
            mask.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
        mask.save(tmp_path / f"{i}_mask.png")
    return tmp_path


def bunch(folder, tfms=None, codes=CODES, **kwargs):
    of_label = {k: kwargs.pop(k) for k in ("div", "ignore_index") if k in kwargs}
    of_tfms = {k: kwargs.pop(k) for k in ("size", "resize_method", "tfm_y") if k in kwargs}
    labelled = (SegmentationItemList.from_folder(folder / "im").split_by_idx([7, 8])
                .label_from_func(lambda p: folder / f"{p.stem}_mask.png", classes=codes, **of_label))
    return labelled.transform(tfms, **of_tfms).databunch(**{"bs": 3, "seed": 0, "device": "cpu", **kwargs})


@pytest.mark.parametrize("max_memory", [2**30, 0])
def test_masks_come_with_their_pictures(folder, max_memory):
    data = bunch(folder, max_memory=max_memory)
    x, y = data.one_batch()
    assert x.shape == (3, 3, 12, 16) and y.shape == (3, 12, 16) and y.dtype == torch.int64
    assert torch.equal((x[:, 0] * 255 / 100).round().long(), y)
    assert data.classes == CODES and data.loss_func.axis == 1
    assert len(data.train_ds) == 7 and [len(y) for _, y in data.valid_dl] == [2]


@pytest.mark.parametrize("kwargs", [{}, {"size": 8}, {"size": (10, 14)}, {"size": 8, "resize_method": "squish"},
                                    {"size": 20, "resize_method": "pad"}])
@pytest.mark.parametrize("max_memory", [2**30, 0])
def test_masks_are_moved_as_their_pictures_are(folder, kwargs, max_memory):
    for i in range(N):  # areas larger than what bilinear interpolation mixes
        area = np.zeros((12, 16), np.uint8)
        area[:, 8:] = 2
        Image.fromarray(np.stack([area * 100] * 3, -1)).save(folder / f"im/{i}.png")
        Image.fromarray(area).save(folder / f"{i}_mask.png")
    tfms = get_transforms(flip_vert=bool(kwargs), max_lighting=0)
    data = bunch(folder, tfms, max_memory=max_memory, tfm_y=True, **kwargs)
    for kind in DatasetType.Train, DatasetType.Valid:
        x, y = data.one_batch(kind)
        assert x.shape[2:] == y.shape[1:] and y.dtype == torch.int64 and set(y.unique().tolist()) == {0, 2}
        sure = (x[:, 0] - 100 / 255).abs() > 0.2     # not half of the one area and half of the other
        assert sure.float().mean() > 0.7 and torch.equal((x[:, 0] * 255 > 100)[sure], (y == 2)[sure])
        if kwargs:
            size = kwargs["size"]
            assert y.shape[1:] == (size if isinstance(size, tuple) else (size, size))


def test_without_transforms_masks_are_scaled_by_the_nearest_pixel(folder):
    data = bunch(folder, size=(6, 8))
    assert data.one_batch()[1].shape == (3, 6, 8) and set(data.one_batch()[1].unique().tolist()) <= {0, 1, 2}


def test_a_model_is_trained_on_masks_and_predicts_them(folder):
    data = bunch(folder, get_transforms(max_warp=0), size=8)
    learn = Learner(data, nn.Conv2d(3, 3, 1), silent=True)
    learn.fit(1)
    preds, y = learn.get_preds()
    assert preds.shape == (2, 3, 8, 8) and y.shape == (2, 8, 8)
    [(x, _)], [(new, _)] = data.valid_dl, data.test_on(data.valid_ds.items)
    assert torch.equal(x, new)
    assert data.prepare_item(data.valid_ds.items[0]).shape == (1, 3, 8, 8)
    fig = data.show_batch(2, return_fig=True)
    assert len(fig.axes[0].images) == 2 and np.array_equal(fig.axes[0].images[1].get_array(), data.one_batch()[1][0])


def test_the_mistakes_with_masks_are_named(folder):
    with pytest.raises(TypeError, match="masks need classes="):
        bunch(folder, codes=None)
    with pytest.raises(TypeError, match="the label of a picture must be the file of its mask, not 3"):
        SegmentationLabelList([3], CODES)
    with pytest.raises(ValueError, match="_mask.png has the value 2, and there are 2 classes, 0 to 1$"):
        list(bunch(folder, codes=CODES[:2]).train_dl)
    with pytest.raises(ValueError, match="leave out tfm_y=False"):
        bunch(folder, get_transforms(), tfm_y=False)
    (folder / "3_mask.png").unlink()
    with pytest.raises(FileNotFoundError, match="there is no file .*3_mask.png"):
        list(bunch(folder).train_dl)
    picture(0, "RGB", (12, 16)).save(folder / "3_mask.png")
    with pytest.raises(ValueError, match="3_mask.png cannot be read as a picture: a mask has one channel"):
        list(bunch(folder).train_dl)


def test_masks_of_black_and_white(tmp_path):
    for name, mask in (("grey", Image.fromarray(np.array([[0, 255]], np.uint8))),
                       ("bits", Image.fromarray(np.array([[False, True]])))):
        mask.save(tmp_path / f"{name}.png")
    files = [tmp_path / "grey.png", tmp_path / "bits.png"]
    with pytest.raises(ValueError, match="has the value 255, .* give div=True, where it is none ignore_index=255"):
        Masks(files, 2)[0]
    assert Masks(files, 2, div=True)[0].tolist() == [[0, 1]] == Masks(files, 2)[1].tolist()
    assert Masks(files, 2, ignore_index=255)[0].tolist() == [[0, 255]]
    assert SegmentationLabelList([], CODES, ignore_index=255).loss_func.ignore_index == 255
