import numpy as np
import pytest
import torch
from pictures import COUNTS, fill, picture
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import functional as TF
from torchvision.transforms import v2

from minifast.data import DatasetType
from minifast.layers import simple_cnn
from minifast.learner import Learner
from minifast.vision.data import ImageDataBunch
from minifast.vision.transform import get_transforms


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path, COUNTS)


def first(folder, tfms, part=0, **kwargs):
    """The first batch of the part that has these transforms: 0 training, 1 validation."""
    data = ImageDataBunch.from_folder(folder, bs=4, seed=0, ds_tfms=tuple(tfms if i == part else None for i in (0, 1)),
                                      device="cpu", **kwargs)
    return data.one_batch([DatasetType.Train, DatasetType.Valid][part])[0]


@pytest.mark.parametrize("tfms", [
    [T.ToTensor()], T.Compose([T.ToTensor()]), [T.ToPILImage(), T.ToTensor()], [T.ToPILImage()],
    [v2.Compose([T.ToPILImage(), T.Compose([T.Lambda(lambda im: im.copy()), T.PILToTensor()])])],
    [T.ConvertImageDtype(torch.float32)], [v2.ToDtype(torch.float32, scale=True)], [v2.ToImage()],
    [lambda x: TF.to_tensor(TF.to_pil_image(x))], lambda x: x.double() / 255, lambda x: x / 255 + 4e-4])
@pytest.mark.parametrize("part", [0, 1])
def test_the_ways_that_torchvision_s_users_know_give_the_same_pictures(folder, tfms, part):
    assert torch.allclose(first(folder, tfms, part), first(folder, None, part), atol=5e-4)
    assert first(folder, tfms, part).shape == (4, 3, 8, 6)


def test_one_channel_becomes_three(folder):
    assert torch.equal(*first(folder, [v2.Grayscale()]).chunk(3, 1)[:2])


@pytest.mark.parametrize("tfms", [[T.Normalize([.5] * 3, [.2] * 3)],
                                  T.Compose([T.ToTensor(), T.Compose([v2.Normalize([.5] * 3, [.2] * 3)])])])
def test_normalize_is_refused_with_what_to_write_in_its_place(folder, tfms):
    with pytest.raises(ValueError, match=r"Normalize.*write data.normalize\(\(\[0.5, 0.5, 0.5\], \[0.2, 0.2, 0.2\]\)"):
        first(folder, tfms)


def halved(x): return x * 127.5
def shifted(x): return x - 0.5
def unknown(x): return x / 0


@pytest.mark.parametrize("tfms, said", [
    ([v2.ToDtype(torch.float32)], "ToDtype.* made floats from .* to 2.., .*divide by 255"),
    ([T.ToTensor(), halved, torch.clone], "halved made floats"),
    ([T.ToTensor(), shifted], "shifted made floats from -0.4"), ([T.ToTensor(), unknown], "unknown made floats"),
    ([lambda x: TF.normalize(x / 255, [.5] * 3, [.2] * 3)], "to normalise use data.normalize"),
    ([lambda x: x.long()], "lambda.* made a picture of torch.int64"),
    ([lambda x: x.permute(1, 2, 0)], r"lambda.* made a picture of the shape \(8, 6, 3\)"),
    ([v2.FiveCrop(4)], r"FiveCrop\(size=\(4, 4\)\) made a tuple"), ([np.asarray], "asarray made a ndarray")])
@pytest.mark.parametrize("part", [0, 1])
def test_what_is_no_picture_is_refused_by_the_name_of_the_transform(folder, tfms, said, part):
    with pytest.raises((TypeError, ValueError), match=said):
        first(folder, tfms, part)


@pytest.mark.parametrize("tfm, said", [
    (lambda x: TF.normalize(x, [.5] * 3, [.2] * 3), r"lambda.* fails on uint8 \(3, 8, 6\): TypeError"),
    (lambda im: im.rotate(10), "lambda.* AttributeError.*needs a PIL image behind ToPILImage"),
    (lambda x: TF.to_tensor(x), "lambda.*floats in .0, 1. goes behind torchvision's ToTensor"),
    (v2.RandomCrop(40), "RandomCrop"), (lambda x: next(iter(())), "lambda.* StopIteration")])
def test_a_transform_that_fails_is_named_with_what_it_was_given(folder, tfm, said):
    with pytest.raises((TypeError, ValueError, RuntimeError), match=said):
        first(folder, [tfm])


def test_what_is_no_function_is_refused_before_any_picture_is_read(folder):
    with pytest.raises(TypeError, match="a transform must be a function of a picture, not 3"):
        first(folder, [3])


def test_new_files_go_the_way_of_validation(folder):
    data = ImageDataBunch.from_folder(folder, bs=4, seed=0, size=6, ds_tfms=(None, lambda x: 255 - x), device="cpu")
    data.normalize(([.5] * 3, [.2] * 3))
    files = data.valid_ds.items
    x = torch.cat([x for x, _ in data.valid_dl])
    for items in files, list(map(str, files)):
        assert torch.equal(torch.cat([x for x, _ in data.test_on(items)]), x)
    assert [len(y) for _, y in data.test_on(files, bs=2)] == [2, 2, 1]
    assert data.add_test(files[:3]) is data and torch.equal(next(iter(data.dl(DatasetType.Test)))[0], x[:3])
    assert torch.equal(next(iter(data.test_on(files[0])))[0], x[:1])
    im = picture(5, "RGB", (40, 50))
    assert torch.equal(next(iter(data.test_on([im])))[0], data.prepare_item(im))
    with pytest.raises(FileNotFoundError, match="there is no file nowhere.png"):
        data.test_on([files[0], "nowhere.png"])
    with pytest.raises(TypeError, match="a picture is a path, a PIL image or a tensor, not int"):
        list(data.test_on([3]))


def test_what_a_model_relies_on_is_told_in_plain_values(folder):
    data = ImageDataBunch.from_folder(folder, bs=4, device="cpu")
    assert data.prepares == {"classes": ["cat", "dog"], "size": [8, 6], "mean": None, "std": None}
    prepares = data.normalize(([.5, .25, 0], [1, 2, 4])).prepares
    assert (prepares["mean"], prepares["std"]) == ([.5, .25, 0], [1, 2, 4])


def test_a_file_of_weights_knows_how_its_pictures_were_prepared(folder, tmp_path):
    def learner(stats=None, **kwargs):
        data = ImageDataBunch.from_folder(folder, bs=4, seed=0, device="cpu", **kwargs)
        return Learner(data.normalize(stats) if stats else data, simple_cnn((3, 4, 2)), path=tmp_path, silent=True)

    stats = [.5, .25, .125], [.25, .5, .125]
    learner(stats, size=6).save("w")
    learner(stats, size=6).load("w")    # and no warning
    for other, said in ((learner(size=6), r"w.pth was saved with pictures .*\(mean \[0.5, 0.25, 0.125\], std .*\) than "
                                          r"this data's \(mean None, std None\).*data.normalize"),
                        (learner(stats, size=4), r"\(size \[6, 6\]\) than this data's \(size \[4, 4\]\)"),
                        (learner(([.5] * 3, stats[1]), size=6), r"\(mean .*\) than this data's \(mean")):
        with pytest.warns(UserWarning, match=said):
            other.load("w")
    learner(size=6).save("plain")
    with pytest.warns(UserWarning, match=r"\(mean None, std None\) than this data's \(mean \[0.5"):
        learner(stats, size=6).load("plain")


@pytest.mark.parametrize("method, expected", [("squish", (8, 6)), ("pad", (8, 6)), ("crop", (8, 6))])
def test_resize_methods_apply_without_transforms_too(folder, method, expected):
    square = np.zeros((20, 20, 3), np.uint8)
    square[:, :10] = 255
    for file in folder.rglob("*.png"):
        Image.fromarray(square).save(file)
    data = ImageDataBunch.from_folder(folder, bs=4, size=expected, resize_method=method, device="cpu")
    left = data.one_batch()[0][..., 0].mean()
    assert data.one_batch()[0].shape == (4, 3, *expected) and left > 0.9
    same = data.prepare_item(folder / "train/cat/0.png")
    assert torch.equal(same, data.one_batch(DatasetType.Valid)[0][:1])
    with pytest.raises(ValueError, match="there is no resize method 'squash'.*Did you mean 'squish'"):
        ImageDataBunch.from_folder(folder, bs=4, size=expected, resize_method="squash")


def test_predicting_leaves_the_generators_unchanged(folder):
    data = ImageDataBunch.from_folder(folder, bs=4, size=6, ds_tfms=get_transforms(), device="cpu")
    before = torch.get_rng_state()
    first = data.prepare_item(data.valid_ds.items[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, data.one_batch(DatasetType.Valid)[0][:1])


@pytest.mark.parametrize("max_memory", [2**30, 0])
def test_workers_give_what_this_process_gives_and_live_as_long_as_the_data(folder, max_memory):
    def make(workers):
        tfms = [v2.ColorJitter(0.5), *get_transforms()[0]], get_transforms()[1]
        return ImageDataBunch.from_folder(folder, bs=4, seed=0, size=6, ds_tfms=tfms, device="cpu", num_workers=workers,
                                          max_memory=max_memory)
    alone, helped = make(0), make(2)
    for _ in range(2):
        for (x, y), (a, b) in zip(alone.train_dl, helped.train_dl, strict=True):
            assert torch.equal(x, a) and torch.equal(y, b)
    first = helped.train_dl.dl._workers._dl
    assert first is not None
    assert all(torch.equal(x, a) for (x, _), (a, _) in zip(alone.train_dl.batches(2), helped.train_dl.batches(2),
                                                           strict=True))
    assert helped.train_dl.dl._workers._dl is first
