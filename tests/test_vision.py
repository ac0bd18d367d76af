import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from pictures import COUNTS, fill, picture
from PIL import Image

from minifast.data import DatasetType
from minifast.layers import simple_cnn
from minifast.learner import Learner
from minifast.loaders import ItemLoader, TensorLoader
from minifast.losses import CrossEntropyFlat
from minifast.vision.data import ImageDataBunch, mnist_stats
from minifast.vision.folders import get_image_files
from minifast.vision.image import open_image
from minifast.vision.transform import flip_lr, get_transforms, rand_pad


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path, COUNTS)


def bunch(path, **kwargs):
    return ImageDataBunch.from_folder(path, **{"bs": 4, "seed": 0, "device": "cpu", **kwargs})


def same(a, b):
    a, b = ([t for batch in dl for t in batch] for dl in (a, b))
    return len(a) == len(b) > 0 and all(map(torch.equal, a, b))


def pixels_of(path):
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) / 255


def test_from_folder(folder):
    data = bunch(folder)
    assert (data.classes, data.c, data.path) == (["cat", "dog"], 2, folder)
    assert (len(data.train_ds), len(data.valid_ds), data.test_ds) == (13, 5, None)
    assert len(data.train_dl) == 3 and len(data.valid_dl) == 2 and isinstance(data.loss_func, CrossEntropyFlat)
    x, y = next(iter(data.valid_dl))
    assert x.shape == (4, 3, 8, 6) and x.dtype == torch.float32
    assert y.tolist() == [0, 0, 0, 1] and y.dtype == torch.int64
    assert [str(p.relative_to(folder)) for p in data.valid_ds.items] == [
        "valid/cat/0.png", "valid/cat/1.png", "valid/cat/2.png", "valid/dog/0.png", "valid/dog/1.png"]
    for image, path in zip(x, data.valid_ds.items, strict=False):
        assert torch.equal(image, pixels_of(path))


def test_training_pictures_keep_their_labels_in_every_order(folder):
    data = bunch(folder, bs=13)
    by_pixels = {tuple(pixels_of(p).flatten().tolist()): p.parent.name for p in data.train_ds.items}
    for _ in range(2):
        [(x, y)] = data.train_dl
        assert [by_pixels[tuple(image.flatten().tolist())] for image in x] == [data.classes[i] for i in y]


def test_grey_pictures_are_kept_as_one_channel_and_those_in_colour_as_three(folder):
    assert bunch(folder).train_ds.images.shape == (13, 1, 8, 6)
    picture(99, "RGB").save(folder / "train/dog/3.png")
    data = bunch(folder, bs=13)
    assert data.train_ds.images.shape == (13, 3, 8, 6)
    for image, path in zip(next(iter(data.dl(DatasetType.Fix)))[0], data.train_ds.items, strict=True):
        assert torch.equal(image, pixels_of(path))


def test_beyond_max_memory_the_same_batches_are_decoded_each_time(folder):
    needed = 18 * 3 * 8 * 6
    kept, decoded = bunch(folder, max_memory=needed), bunch(folder, max_memory=needed - 1)
    assert isinstance(kept.train_dl.dl, TensorLoader) and isinstance(decoded.train_dl.dl, ItemLoader)
    for data in kept, decoded:
        data.normalize()
    for _ in range(2):
        assert same(kept.train_dl, decoded.train_dl)
    assert same(kept.valid_dl, decoded.valid_dl)


def test_size_scales_and_crops_without_distortion(tmp_path, folder):
    left_dark = Image.fromarray(np.repeat(np.array([[0] * 10 + [255] * 30], np.uint8), 20, 0))  # 20 high, 40 wide
    left_dark.save(tmp_path / "wide.png")
    x = open_image(tmp_path / "wide.png", 20)  # columns 10 to 29 are left
    assert x.shape == (3, 20, 20) and torch.equal(x, torch.ones(3, 20, 20))
    assert bunch(folder, size=4).one_batch()[0].shape == (4, 3, 4, 4)
    assert bunch(folder, size=(4, 5), max_memory=0).one_batch()[0].shape == (4, 3, 4, 5)
    assert bunch(folder, size=np.int64(4)).size == (4, 4)
    for bad in 0, (3,), "3", 2.5, True, (4, -1):
        with pytest.raises(ValueError, match="size must be a whole number or"):
            bunch(folder, size=bad)


def test_valid_pct_holds_back_a_part_of_all_pictures_by_seed(folder):
    data, again, other = (bunch(folder, valid_pct=0.3, seed=seed) for seed in (0, 0, 1))
    assert len(data.valid_ds) == 5 and not set(data.train_ds.items) & set(data.valid_ds.items)
    assert len(set(data.train_ds.items) | set(data.valid_ds.items)) == 18
    assert data.valid_ds.items == again.valid_ds.items != other.valid_ds.items
    for bad in 0, 1, 0.01, 30:
        with pytest.raises(ValueError, match=f"valid_pct={bad} of 18 pictures: it must be between 0 and 1"):
            bunch(folder, valid_pct=bad)


def test_a_test_folder_has_no_labels_and_is_in_order(folder):
    (folder / "test").mkdir()
    for i in range(3):
        picture(50 + i).save(folder / f"test/{i}.png")
    data = bunch(folder, test="test")
    [(x, y)] = data.dl(DatasetType.Test)
    assert torch.equal(x[2], pixels_of(folder / "test/2.png")) and y.tolist() == [0, 0, 0]
    assert len(bunch(folder, test="test", valid_pct=0.5).train_ds) == 9


def test_classes_can_be_given_their_order(folder):
    data = bunch(folder, classes=["dog", "cat"])
    assert data.classes == ["dog", "cat"] and next(iter(data.valid_dl))[1].tolist() == [1, 1, 1, 0]


def errors(kind, match):
    return pytest.raises(kind, match=match)


def test_missing_and_empty_folders_are_named(folder, tmp_path):
    with errors(FileNotFoundError, "there is no folder .*nowhere"):
        bunch(folder / "nowhere")
    with errors(FileNotFoundError, "there is no folder .*val to validate on: .*valid_pct=0.2"):
        bunch(folder, valid="val")
    with errors(FileNotFoundError, "there is no folder .*training"):
        bunch(folder, train="training")
    (folder / "empty").mkdir()
    (folder / "empty/notes.txt").write_text("no picture")
    with errors(ValueError, "there are no pictures in .*empty"):
        bunch(folder, train="empty")


@pytest.mark.parametrize("max_memory", [2**30, 0])
@pytest.mark.parametrize("content", [b"", b"no picture at all", "cut"])
def test_a_file_that_is_no_picture_is_named(folder, content, max_memory):
    file = folder / "train/dog/2.png"
    file.write_bytes(file.read_bytes()[:60] if content == "cut" else content)
    with errors(ValueError, "train/dog/2.png cannot be read as a picture"):
        list(bunch(folder, max_memory=max_memory, bs=13).train_dl)


def test_more_than_eight_bits_are_refused_not_cut_off(folder):
    Image.fromarray(np.full((8, 6), 1000, np.uint16)).save(folder / "train/dog/2.png")
    with errors(ValueError, "train/dog/2.png .*more than 8 bits"):
        bunch(folder)


@pytest.mark.parametrize("max_memory", [2**30, 0])
def test_different_sizes_need_size_or_a_transform(folder, max_memory):
    picture(99, size=(9, 6)).save(folder / "train/dog/2.png")
    with errors(ValueError, "(dog/2.png is 9x6 .h x w., .*cat/0.png is 8x6|3, 8, 6. and .3, 9, 6).*: give size="):
        list(bunch(folder, max_memory=max_memory, bs=13).train_dl)
    assert bunch(folder, max_memory=max_memory, size=8).one_batch()[0].shape == (4, 3, 8, 8)

    def crop(x): return x[:, :5, :5]
    [(x, _)] = bunch(folder, max_memory=max_memory, bs=13, ds_tfms=(crop, crop)).train_dl
    assert x.shape == (13, 3, 5, 5)


def test_large_pictures_are_decoded_in_threads_to_the_same(folder):
    for k in range(7):
        picture(k, size=(120, 100)).save(folder / f"train/cat/{k}.png")
    data = ImageDataBunch.from_lists(folder / "train/cat", [f"{k}.png" for k in range(7)], "abababa", bs=2)
    assert all(torch.equal(data.train_ds.raw(i) / 255, pixels_of(p)) for i, p in enumerate(data.train_ds.items))
    picture(0, size=(100, 100)).save(folder / "train/cat/5.png")
    with errors(ValueError, "5.png is 100x100"):
        ImageDataBunch.from_lists(folder / "train/cat", [f"{k}.png" for k in range(7)], "abababa", bs=2)


def test_one_class_and_unknown_labels_are_named(folder):
    with errors(ValueError, "all training pictures are of one class, 'cat'"):
        bunch(folder, train="train/cat", valid="valid/cat")
    (folder / "valid/dog").rename(folder / "valid/dogs")
    with errors(ValueError, r"the label 'dogs' is none of the classes .*\['cat', 'dog'\]. Did you mean 'dog'"):
        bunch(folder)


def test_a_batch_larger_than_the_training_set_says_what_to_do(folder):
    with errors(ValueError, "13 training samples do not fill one batch of 64"):
        bunch(folder, bs=64)


def test_transforms_apply_to_bytes_and_may_give_bytes_or_floats(folder):
    def invert(x): return 255 - x
    def halve(x): return x / 510
    plain, data = bunch(folder), bunch(folder, ds_tfms=([invert, halve], invert))
    assert torch.allclose(data.one_batch()[0], (1 - plain.one_batch()[0]) / 2)
    assert torch.equal(data.one_batch(DatasetType.Valid)[0], (255 - 255 * plain.one_batch(DatasetType.Valid)[0]) / 255)
    assert torch.equal(data.one_batch(DatasetType.Fix)[0], (255 - 255 * plain.one_batch(DatasetType.Fix)[0]) / 255)
    with errors(TypeError, "made a ndarray of a tensor"):
        bunch(folder, ds_tfms=(lambda x: x.numpy(), None)).one_batch()
    for bad in invert, [invert], (invert, invert, invert):
        with errors(ValueError, "ds_tfms must be a pair"):
            bunch(folder, ds_tfms=bad)


def test_random_transforms_are_the_same_for_any_number_of_workers(folder):
    tfms = get_transforms(max_warp=0.3, xtra_tfms=rand_pad(2, 8))
    alone, workers = bunch(folder, ds_tfms=tfms), bunch(folder, ds_tfms=tfms, num_workers=2)
    first, second = list(alone.train_dl), list(alone.train_dl)
    assert same(first, workers.train_dl) and same(second[1:], workers.train_dl.batches(start=1))
    x = first[0][0]
    assert not same(first, second) and x.shape == (4, 3, 8, 8) and 0 <= x.min() <= x.max() <= 1
    x = torch.arange(18, dtype=torch.uint8).view(3, 2, 3)
    assert torch.equal(flip_lr(1.0)(x), x.flip(2)) and torch.equal(flip_lr(0.0)(x), x)


def test_normalize_by_the_data_s_own_statistics(folder):
    for max_memory in 2**30, 0:
        data = bunch(folder, bs=13, max_memory=max_memory)
        [(raw, _)] = data.dl(DatasetType.Fix)
        assert data.normalize() is data
        [(x, _)] = data.dl(DatasetType.Fix)
        assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-6)
        assert torch.allclose(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-6)
        assert torch.allclose(data.denorm(x), raw, atol=1e-6)
        assert torch.allclose(data.one_batch(DatasetType.Fix)[0], raw, atol=1e-6)  # denorm is its default
        assert torch.equal(data.one_batch(DatasetType.Fix, denorm=False)[0], x)
    with errors(RuntimeError, "normalised already"):
        data.normalize(mnist_stats)


def test_normalize_by_given_statistics(folder):
    data, raw = bunch(folder), bunch(folder).one_batch()[0]
    x = data.normalize(([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])).one_batch(denorm=False)[0]
    assert torch.allclose(x[:, 1], (raw[:, 1] - 0.2) / 0.6, atol=1e-6)
    for bad in [.5] * 3, "imagenet", ([.5] * 3, .5), (0.5, 0.5):
        with errors(ValueError, "stats must be .means, standard deviations., .* such as imagenet_stats"):
            bunch(folder).normalize(bad)
    with errors(ValueError, "standard deviation"):
        bunch(folder).normalize(([0.1] * 3, [0.5, 0.0, 0.5]))
    with errors(ValueError, "give stats="):
        ImageDataBunch(list(data.train_dl)).normalize()


def test_one_item_is_prepared_as_validation_pictures_are(folder):
    def invert(x): return 255 - x
    for kwargs in {}, {"ds_tfms": (None, invert)}, {"size": (4, 5)}:
        data = bunch(folder, **kwargs).normalize(mnist_stats)
        [x, *_], _ = next(iter(data.valid_dl))
        path = data.valid_ds.items[0]
        for item in path, str(path), Image.open(path), data.valid_ds[0][0]:
            assert torch.equal(data.prepare_item(item), x[None])
    for data in bunch(folder, max_memory=0), bunch(folder):
        assert data.prepare_item(picture(1, "RGB", (90, 80))).shape == (1, 3, 8, 6)  # scaled to the size of the data
    grey = torch.rand(1, 8, 6)
    assert torch.equal(data.prepare_item(grey), grey.expand(1, 3, 8, 6))
    with errors(ValueError, r"a picture is a tensor \(1 or 3, height, width\), not \(8, 6\)"):
        data.prepare_item(grey[0])
    with errors(FileNotFoundError, "there is no file nowhere.png"):
        data.prepare_item("nowhere.png")


def test_from_lists_names_and_tables(folder):
    names = [f"train/{k}/{i}.png" for k in ("cat", "dog") for i in range(6)]
    table = pd.DataFrame({"label": [0, 1] * 6, "name": [n.removesuffix(".png").removeprefix("train/") for n in names]})
    table.to_csv(folder / "labels.csv", index=False)
    made = [
        ImageDataBunch.from_lists(folder, names, [0, 1] * 6, valid_pct=0.25, seed=3, bs=4),
        ImageDataBunch.from_df(folder, table, "train", "name", "label", ".png", valid_pct=0.25, seed=3, bs=4),
        ImageDataBunch.from_csv(folder, "train", fn_col=1, label_col=0, suffix=".png", valid_pct=0.25, seed=3, bs=4)]
    for data in made:
        assert data.classes == [0, 1] and len(data.valid_ds) == 3
        assert all(int(data.train_ds.items[i].stem) % 2 == label for i, label in enumerate(data.train_ds.y))
    batches = [list(data.train_dl) for data in made]
    assert same(batches[0], batches[1]) and same(batches[0], batches[2])
    files = get_image_files(folder / "train", recurse=True)
    for data in (ImageDataBunch.from_name_re(folder, files, r"/(cat|dog)/", bs=4),
                 ImageDataBunch.from_name_func(folder, files, lambda path: path.parent.name, bs=4)):
        assert data.classes == ["cat", "dog"] and len(data.train_ds) == 11
        assert [p.parent.name for p in data.train_ds.items] == [data.classes[label] for label in data.train_ds.y]
    with errors(ValueError, "'bird' is not found in .*train/cat/0.png"):
        ImageDataBunch.from_name_re(folder, files, "bird")
    with errors(ValueError, "12 file names and 1 labels"):
        ImageDataBunch.from_lists(folder, names, [0])


def test_get_image_files_is_sorted_and_takes_pictures_only(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in "b.PNG", "a.jpg", "notes.txt", ".hidden.png", "sub/c.png":
        (tmp_path / name).touch()
    assert [p.name for p in get_image_files(tmp_path)] == ["a.jpg", "b.PNG"]
    assert [p.name for p in get_image_files(tmp_path, recurse=True)] == ["a.jpg", "b.PNG", "c.png"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_open_image_gives_three_channels_for_every_mode(tmp_path, mode):
    image = picture(0, "RGB").convert(mode)
    x = open_image(image)
    expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255
    assert x.dtype == torch.float32 and torch.equal(x, expected)


def test_show_batch_draws_the_pictures_of_the_coming_batch_with_their_classes(folder):
    data = bunch(folder).normalize(mnist_stats)
    fig = data.show_batch(2, return_fig=True)
    x, y = data.one_batch()
    assert [ax.get_title() for ax in fig.axes] == [data.classes[i] for i in y]
    assert np.allclose(fig.axes[3].images[0].get_array(), x[3].permute(1, 2, 0).clamp(0, 1))
    assert data.train_dl.state_dict()["passes"] == 0
    assert len([ax for ax in data.show_batch(3, DatasetType.Valid, return_fig=True).axes if ax.images]) == 4
    assert data.show_batch(1) is None
    plt.close("all")


def test_the_star_module_gives_all_that_it_names_and_what_a_script_needs():
    given = {}
    exec("from minifast.vision import *", given)
    assert given["ImageDataBunch"] is ImageDataBunch and given["torch"] is torch
    assert {"untar_data", "URLs", "Learner", "accuracy", "simple_cnn", "DatasetType", "imagenet_stats", "open_image",
            "get_transforms", "nn", "np", "Path", "LearnerCallback", "partial"} <= set(given)


def test_a_run_is_not_continued_on_other_pictures(folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")

    def train(seed):
        torch.manual_seed(0)
        data = bunch(folder, valid_pct=0.3, seed=seed)
        learn = Learner(data, simple_cnn((3, 4, 2)), path=home, silent=True)
        learn.fit(1, 1e-3, checkpoint="run")
        return learn

    train(1)
    with pytest.warns(UserWarning, match="is a finished run: it is loaded"):
        assert len(train(1).recorder.lrs) > 0      # the same pictures: loaded
    with pytest.raises(ValueError, match=r"other settings.*training data's content \(a random part needs seed=\): "):
        train(2)
