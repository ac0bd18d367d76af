import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates

from minifast.data import DatasetType
from minifast.device_loader import DeviceDataLoader
from minifast.fakes import fake_learner
from minifast.loaders import ItemLoader, Seeded, TensorLoader
from minifast.vision.augment import Augment
from minifast.vision.data import ImageDataBunch
from minifast.vision.geometry import (
    dihedral,
    flip_lr,
    jitter,
    perspective_warp,
    rotate,
    skew,
    squish,
    symmetric_warp,
    tilt,
    zoom,
)
from minifast.vision.image import pixels
from minifast.vision.image_list import SegmentationItemList
from minifast.vision.plan import ResizeMethod
from minifast.vision.transform import (
    brightness,
    contrast,
    crop,
    crop_pad,
    cutout,
    get_transforms,
    pad,
    rand_crop,
    rand_pad,
    rand_resize_crop,
    zoom_crop,
)
from minifast.vision.tta import tta_loaders, tta_tfms
from minifast.vision.warp import warp

MODES = {"reflection": "reflect", "border": "nearest", "zeros": "grid-constant"}


def picture(h=20, w=27, channels=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (channels, h, w), dtype=np.uint8))


def reference(image, places, size, padding="reflection", order=1):
    """`image` read where `places` says, a function of the new picture's places (x, y) from -1 to 1."""
    h, w = image.shape[1:]
    y, x = np.meshgrid(*((2 * np.arange(n) + 1) / n - 1 for n in size), indexing="ij")
    x, y = places(x, y)
    at = np.stack(np.broadcast_arrays((y + 1) * h / 2 - 0.5, (x + 1) * w / 2 - 0.5))
    if order == 0:
        at = np.rint(at)
    planes = [map_coordinates(plane.numpy().astype(float), at, order=order, mode=MODES[padding]) for plane in image]
    return torch.from_numpy(np.stack(planes)) / 255


def moved(tfms, image, **kwargs):
    x, _ = Augment(tfms, **kwargs)((image[None], None))
    return x[0]


def turned(degrees, h, w):
    """Places after a turn of the pixels about the middle, against the clock."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def places(x, y):
        x, y = x * w, y * h
        return (c * x - s * y) / w, (s * x + c * y) / h
    return places


def tilted(m):
    """Places if the upper edge is longer by the share m: what a map does to four corners says all of it."""
    return lambda x, y: (x / (1 + m / 2 - m / 2 * y), (-m / 2 + (1 + m / 2) * y) / (1 + m / 2 - m / 2 * y))


GEOMETRY = {
    "flip": ([flip_lr(1.0)], lambda x, y: (-x, y)),
    "half turn": ([dihedral(3)], lambda x, y: (-x, -y)),
    "rotate": ([rotate(25)], turned(25, 20, 27)),
    "zoom": ([zoom(1.25, row_pct=0.0, col_pct=1.0)], lambda x, y: (0.8 * x + 0.2, 0.8 * y - 0.2)),
    "smaller": ([zoom(0.8)], lambda x, y: (1.25 * x, 1.25 * y)),
    "narrow": ([squish(0.8, col_pct=0.0)], lambda x, y: (0.8 * x - 0.2, y)),
    "low": ([squish(1.25, row_pct=1.0)], lambda x, y: (x, 0.8 * y + 0.2)),
    "tilt": ([tilt(2, 0.4)], tilted(0.4)),
    "tilt inwards": ([tilt(2, -0.3)], tilted(-0.3)),
    "all edges": ([symmetric_warp(0.25)], lambda x, y: (x / 1.25, y / 1.25)),
    "all corners": ([perspective_warp(-0.2)], lambda x, y: (x / 0.8, y / 0.8)),
    "composed": ([tilt(2, 0.4), rotate(-15), zoom(1.25, 0.0, 1.0), flip_lr(1.0)],
                 lambda x, y: (lambda a, b: (-a, b))(*tilted(0.4)(*turned(-15, 20, 27)(0.8 * x + 0.2, 0.8 * y - 0.2)))),
}


@pytest.mark.parametrize("padding", MODES)
@pytest.mark.parametrize("name", GEOMETRY)
def test_pixels_are_those_of_a_reference_warp(name, padding):
    tfms, places = GEOMETRY[name]
    image = picture()
    want = reference(image, places, (20, 27), padding)
    got = moved(tfms, image, padding_mode=padding)
    assert (got - want).abs().max() < 1 / 255
    assert (got - image / 255).abs().max() > 0.2


def test_turns_and_flips_are_exact():
    square, wide = picture(20, 20), picture(5, 7)
    assert torch.equal(rotate(90)(square), square.rot90(1, (1, 2)))
    for k, want in enumerate([wide, wide.flip(2), wide.flip(1), wide.flip(1, 2)]):
        assert torch.equal(dihedral(k)(wide), want)
        assert torch.equal(dihedral(k + 4)(wide), want.transpose(1, 2))


FRAMES = [("crop", (12, 12), (12, 18)), ("crop", (16, 20), (16, 24)), ("pad", (12, 24), (12, 18)),
          ("squish", (15, 17), (15, 17)), ("no", (12, 24), (20, 30)), ("no", (24, 31), (20, 30))]


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("method, size, frame", FRAMES)
def test_resizing_and_cropping_are_one_interpolation(method, size, frame, at):
    image = picture(20, 30)
    got = moved([crop_pad(row_pct=at, col_pct=at)], image, size=size, resize_method=method)
    first = [min(int((f - s + 1) * at), f - s) if f >= s else -((s - f + 1) // 2)
             for f, s in zip(frame, size, strict=True)]

    def places(x, y):   # pixels of the new picture, in the frame, as shares of it
        x, y = (x + 1) * size[1] / 2 + first[1], (y + 1) * size[0] / 2 + first[0]
        return 2 * x / frame[1] - 1, 2 * y / frame[0] - 1
    assert (got - reference(image, places, size)).abs().max() < 1 / 255


def test_what_is_made_much_smaller_is_averaged_first():
    stripes = torch.zeros(1, 48, 48)
    stripes[:, :, ::2] = 1      # a pixel wide: read at every third place they would be stripes again
    assert torch.allclose(moved([], stripes, size=12), torch.full((1, 12, 12), 0.5))
    image = picture(48, 36)
    mean = (image / 255).unfold(1, 3, 3).unfold(2, 3, 3).mean((3, 4))
    assert torch.allclose(moved([crop_pad()], image, size=12, resize_method="no"), image[:, 18:30, 12:24] / 255)
    assert torch.allclose(moved([], image, size=(16, 12), resize_method="squish"), mean, atol=1e-5)


def test_bytes_floats_and_other_numbers_of_channels_stay_what_they_are():
    for tfm in [rotate(30), brightness(0.7), crop(8), cutout(length=5)]:
        torch.manual_seed(0)
        whole = tfm(picture())
        for x in (picture() / 255, (picture() / 255).double(), picture()[:1]):
            torch.manual_seed(0)
            new = tfm(x)
            assert new.dtype == x.dtype and len(new) == len(x)
            new = new.float() * (255 if x.is_floating_point() else 1)
            assert torch.allclose(new, whole[:len(x)].float(), atol=0.51)
    image = picture()
    kept = image.clone()
    cutout(length=9)(contrast(2.0)(image))
    assert torch.equal(image, kept)


def test_no_corner_becomes_black():
    white = torch.full((3, 32, 24), 255, dtype=torch.uint8)
    for tfms in (get_transforms(max_rotate=45, max_warp=0.5, max_zoom=1.3, max_lighting=0, flip_vert=True)[0],
                 rand_pad(6, 40), [zoom(0.5)], [skew(magnitude=(-0.4, 0.4))], [jitter(0.1)]):
        for _ in range(20):
            x = white
            for tfm in tfms:
                x = tfm(x)
            assert x.min() == 255
    assert Augment([rotate(45)], padding_mode="zeros").picture(white).min() == 0


def test_masks_move_with_their_pictures():
    x = torch.stack([picture(24, 24, seed=i) for i in range(6)])
    mask = (x[:, 0] > 100).long() * 7
    x[:] = (mask[:, None] > 0) * 255
    tfms = get_transforms(max_rotate=30, flip_vert=True, xtra_tfms=[jitter(0.01)])[0]
    for y in (mask, mask[:, None]):
        new, moved_mask = Augment(tfms, size=20, masks=True)((Seeded(x, np.arange(6)), y))
        assert moved_mask.dtype == torch.int64 and moved_mask.shape == y.shape[:-2] + (20, 20)
        assert set(moved_mask.unique().tolist()) == {0, 7}
        sure = (new[:, 0] - 0.5).abs() > 0.35      # not between two values, after changes of brightness and contrast
        assert sure.float().mean() > 0.3
        assert torch.equal(new[:, 0][sure] > 0.5, moved_mask.view(6, 20, 20)[sure] > 0)
    places = turned(25, 20, 27)
    image, ids = picture(), picture(channels=1)
    _, got = Augment([rotate(25)], masks=True)((image[None], ids))
    assert torch.equal(got[0].float(), (reference(ids, places, (20, 27), order=0)[0] * 255).round().float())


# ---- what is drawn

def drawn(tfms, n=8000, sizes=(20, 27), **kwargs):
    """The plan of so many pictures, with seeds 0, 1, 2, ..."""
    return Augment(tfms, **kwargs).plan(torch.empty(n, 1, *sizes, device="meta"), np.arange(n))[0]


def is_uniform(values, low, high, tolerance=0.02):
    quantiles = np.quantile(values, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
    want = low + (high - low) * np.array([0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
    inside = low - 1e-9 <= values.min() and values.max() <= high + 1e-9
    return inside and np.abs(quantiles - want).max() < tolerance * (high - low)


def changed(plan):
    return np.abs(plan.matrix - np.eye(3)).max((1, 2)) > 1e-9


def test_the_draws_of_v1_s_set():
    train, valid = get_transforms(max_rotate=20, max_zoom=1.3, max_warp=0.1, max_lighting=0.3, p_affine=0.6,
                                  p_lighting=0.4)
    assert [tfm.name for tfm in train] == ["crop_pad", "flip_lr", "symmetric_warp", "rotate", "zoom", "brightness",
                                          "contrast"]
    assert [tfm.name for tfm in valid] == ["crop_pad"]
    _, flip, warped, turn, zooms, bright, more = ([tfm] for tfm in train)

    assert np.mean(drawn(flip).matrix[:, 0, 0] == -1) == pytest.approx(0.5, abs=0.015)
    plan = drawn(turn)
    assert changed(plan).mean() == pytest.approx(0.6, abs=0.015)
    assert is_uniform(np.degrees(np.arccos(plan.matrix[:, 0, 0]))[changed(plan)], 0, 20)
    assert np.mean(plan.matrix[changed(plan), 1, 0] > 0) == pytest.approx(0.5, abs=0.02)
    plan = drawn(zooms)
    part = plan.matrix[:, 0, 0]
    assert changed(plan).mean() == pytest.approx(0.6, abs=0.015) and is_uniform(1 / part[changed(plan)], 1, 1.3)
    big = part < 0.95
    for axis in 0, 1:       # the point about which it is enlarged lies anywhere
        assert is_uniform(plan.matrix[big, axis, 2] / (1 - part[big]), -1, 1)
    plan = drawn(bright)
    shift = plan.light[1]
    assert np.mean(shift != 0) == pytest.approx(0.4, abs=0.015)
    assert is_uniform(1 / (1 + np.exp(-shift[shift != 0])), 0.35, 0.65) and np.all(plan.light[0] == 1)
    plan = drawn(more)
    factor = plan.light[0]
    assert np.mean(factor != 1) == pytest.approx(0.4, abs=0.015)
    assert is_uniform(np.log(factor[factor != 1]), np.log(0.7), np.log(1 / 0.7)) and np.all(plan.light[1] == 0)

    plan = drawn(warped)
    assert changed(plan).mean() == pytest.approx(0.6, abs=0.015)
    maps = np.linalg.inv(plan.matrix[changed(plan)])
    edges = []
    for corner in (-1, -1), (1, 1):
        x, y, z = (maps @ [*corner, 1]).T
        edges += [corner[0] * x / z - 1, corner[1] * y / z - 1]
    for edge in edges:      # where the corners of a picture come to lie: each edge has its own draw
        assert is_uniform(edge, -0.1, 0.1)
    assert np.abs(np.corrcoef(edges) - np.eye(4)).max() < 0.05


def test_the_draws_of_the_single_ones():
    ways = [tuple(np.rint(m).ravel()) for m in drawn([dihedral()]).matrix]
    assert len(set(ways)) == 8 and all(ways.count(way) == pytest.approx(1000, abs=110) for way in set(ways))
    plan = drawn([rand_crop(8)])
    top, left = ((plan.matrix[:, i, 2] + 1) * n / 2 - 4 for i, n in ((1, 20), (0, 27)))
    assert sorted(set(np.rint(top))) == list(range(13)) and sorted(set(np.rint(left))) == list(range(20))
    assert np.bincount(np.rint(left).astype(int)).min() > 300
    plan = drawn([cutout((1, 3), (2, 6))])
    sides = np.stack([hole[:, 1] - hole[:, 0] for hole in plan.holes])
    assert [np.mean((sides > 0).sum(0) == k) for k in (1, 2, 3)] == pytest.approx([1 / 3] * 3, abs=0.02)
    assert set(sides.ravel()) == {0, 2, 3, 4, 5, 6}
    assert is_uniform((plan.holes[0][:, :2].sum(1) / 2) / 20, 0, 1, tolerance=0.06)
    assert {round(f, 3) for f in drawn([tilt((0, 3), 0.3)]).matrix[:, 2, 0]} == {0, 0.13, -0.13}


@pytest.mark.parametrize("scale", [None, (0.08, 1.0)])
def test_random_resized_crops(scale):
    plan = drawn(rand_resize_crop(16, max_scale=2.5, scale=scale), sizes=(200, 300))
    width, height = plan.matrix[:, 0, 0] * 300, plan.matrix[:, 1, 1] * 200
    ratio, area = width / height, width * height / 200 / 300
    assert 0.75 - 1e-9 <= ratio.min() < 0.76 and 1.32 < ratio.max() <= 4 / 3 + 1e-9
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.05)
    small = area < 0.4      # larger ones do not always fit
    if scale:
        assert is_uniform(area[small], 0.08, 0.4)
    else:
        assert is_uniform(area[small]**-0.5, 0.4**-0.5, 2.5)
    for axis, part in ((0, width / 300), (1, height / 200)):
        assert is_uniform((plan.matrix[small, axis, 2] / (1 - part[small])), -1, 1)
    assert np.abs(plan.matrix[:, :2, 2]).max() <= 1
    plain = drawn(rand_resize_crop(16, p=0.0), n=1, sizes=(200, 300))
    assert plain.matrix[0].tolist() == [[pytest.approx(2 / 3), 0, 0], [0, 1, 0], [0, 0, 1]]


def test_a_draw_is_a_function_of_the_seed_alone():
    x, seeds = torch.stack([picture(seed=i) for i in range(5)]), np.array([3, 2**61, 5, 3, 9])
    tfms = get_transforms(flip_vert=True, xtra_tfms=[jitter(0.02), cutout(2, 5), *rand_resize_crop()])[0]
    augment = Augment(tfms, size=16)
    whole, y = augment((Seeded(x, seeds), torch.arange(5)))
    assert whole.shape == (5, 3, 16, 16) and y.tolist() == [0, 1, 2, 3, 4]
    torch.manual_seed(5)        # nothing else counts: neither the other samples of the batch nor a generator
    for rows in ([4, 1], [2], [3, 0, 1]):
        assert torch.equal(augment((Seeded(x[rows], seeds[rows]), None))[0], whole[rows])
    ragged = [picture(), picture(40, 17), picture(9, 33, channels=1)]
    together, _ = augment((Seeded(ragged, seeds[:3]), None))
    for i, image in enumerate(ragged):
        alone, _ = augment((Seeded(image[None], seeds[i:i + 1]), None))
        assert torch.equal(together[i], alone[0].expand(3, -1, -1))
    same = Augment(tfms, size=16)((Seeded(x[[0, 0]], seeds[[0, 3]]), None))[0]
    assert torch.equal(same[0], same[1])
    torch.manual_seed(1)
    one = augment((x, None))[0]
    torch.manual_seed(1)
    assert torch.equal(one, augment((x, None))[0]) and not torch.equal(one, augment((x, None))[0])


class Items:
    def __len__(self):
        return 10

    def __getitem__(self, i):
        return picture(seed=i), torch.tensor(i)


@pytest.mark.parametrize("kind", ["tensors", "items", "workers"])
def test_loaders_give_seeds_by_seed_pass_and_index(kind):
    x, y = torch.stack([picture(seed=i) for i in range(10)]), torch.arange(10)

    def loader(seed=1, bs=4, shuffle=True):
        dl = TensorLoader(x, y, bs, shuffle, seed=seed) if kind == "tensors" else ItemLoader(
            Items(), bs, shuffle, seed=seed, num_workers=2 * (kind == "workers"))
        dl.seeded = True
        return dl
    dl = loader()
    first, second = list(dl), list(dl)
    by_index = {int(i): int(s) for batch, rows in first for i, s in zip(rows, batch.seeds, strict=True)}
    assert len(by_index) == len(set(by_index.values())) == 10
    assert all(torch.equal(batch.x, x[rows]) for batch, rows in first)
    resumed = loader()
    resumed.load_state_dict({"seed": 1, "passes": 1})
    for (a, rows), (b, again) in zip(second[1:], resumed.batches(1), strict=True):
        assert torch.equal(rows, again) and a.seeds.tolist() == b.seeds.tolist()
    assert {int(s) for batch, _ in second for s in batch.seeds}.isdisjoint(by_index.values())
    others = [{int(i): int(s) for batch, rows in dl for i, s in zip(rows, batch.seeds, strict=True)}
              for dl in (loader(bs=3), loader(seed=2), loader(shuffle=False))]
    assert others[0] == by_index and set(others[1].values()).isdisjoint(by_index.values())
    assert [int(i) for i in others[2]] == list(range(10))
    dl.seeded = False
    assert isinstance(next(iter(dl))[0], torch.Tensor)


def test_small_steps_are_made_on_one_thread_and_the_number_is_left_unchanged(monkeypatch):
    seen = []

    class Counting(Items):
        def __getitem__(self, i):
            seen.append(torch.get_num_threads())
            return super().__getitem__(i)

    def counting_warp(*args):
        seen.append(torch.get_num_threads())
        return warp(*args)
    monkeypatch.setattr("minifast.vision.augment.warp", counting_warp)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        list(ItemLoader(Counting(), bs=5))
        Augment(get_transforms()[0], size=16)((torch.stack([picture()] * 30), None))
        assert set(seen) == {1} and len(seen) > 10
        with pytest.raises(ValueError):
            Augment([])(([picture(), picture(5, 5)], None))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_gpus_see_the_same(monkeypatch):
    # the way of a device other than the CPU: all pictures in one step
    x, tfms = torch.stack([picture(seed=i) for i in range(9)]), get_transforms(xtra_tfms=[cutout(2, 5)])[0]
    monkeypatch.setattr("minifast.vision.augment.PIXELS_AT_ONCE", 1)
    one_by_one = Augment(tfms, size=16)((Seeded(x, np.arange(9)), None))[0]
    monkeypatch.setattr("minifast.vision.augment.PIXELS_AT_ONCE", 10**9)
    assert torch.allclose(Augment(tfms, size=16)((Seeded(x, np.arange(9)), None))[0], one_by_one, atol=1e-5)


def test_how_far_pictures_may_be_shrunk_when_they_are_decoded():
    tfms = get_transforms()[0]
    assert [Augment(tfms, 128).shrink(350, w) for w in (400, 300, 100)] == [2, 2, 1]
    assert [Augment(tfms, size, how).shrink(900, 500) for size, how in (
        (100, "crop"), (100, "squish"), (100, "pad"), (100, "no"), (None, "crop"), ((300, 100), "crop"))] == [
            4, 4, 8, 1, 1, 2]
    assert Augment(rand_resize_crop(max_scale=3.0), 100).shrink(900, 900) == 3
    assert Augment(zoom_crop((1.0, 4.5)), 100).shrink(900, 900) == 2


@pytest.mark.parametrize("make, message", [
    (lambda: rotate(p=1.5), r"p is a probability, from 0 to 1, not 1\.5"),
    (lambda: rotate((10, -10)), r"degrees must be a number, or a range \(low, high\) of them, not \(10, -10\)"),
    (lambda: rotate((1, 2, 3)), r"not \(1, 2, 3\)"),
    (lambda: zoom(0), r"scale must be a number above 0, or a range"),
    (lambda: zoom(2, row_pct=1.5), r"row_pct must be from 0 to 1, .* not 1\.5"),
    (lambda: brightness((0, 0.5)), r"change must be a number above 0 below 1"),
    (lambda: symmetric_warp(1.0), r"magnitude must be a number above -1 below 1"),
    (lambda: dihedral(8), r"k must be a whole number from 0 to 7, .* not 8"),
    (lambda: cutout(1.5), r"n_holes must be a whole number"),
    (lambda: get_transforms(max_lighting=1.0), r"max_lighting must be .*not 1\.0"),
    (lambda: get_transforms(p_affine=-1), r"p is a probability"),
    (lambda: pad(2, "reflect"), r"padding_mode must be one of .* Did you mean 'reflection'\?"),
    (lambda: Augment([], 8, "croop"), r"no resize method 'croop'.* Did you mean 'crop'\?"),
    (lambda: Augment([], (8, 0)), r"size must be"),
    (lambda: Augment(rand_resize_crop()).picture(picture()), r"rand_resize_crop needs a size"),
    (lambda: Augment([])(([picture(), picture(5, 5)], None)), r"come to the sizes 5x5 and 20x27 \(h x w\): give size="),
])
def test_bad_values_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_picture_is_refused():
    for x, what in ((torch.zeros(2, 3, 4, 4), r"float32 \(2, 3, 4, 4\)"), (np.zeros((3, 4, 4)), "ndarray")):
        with pytest.raises(TypeError, match=f"a transform takes one picture.*{what}"):
            rotate(10)(x)
    with pytest.raises(TypeError, match="degrees must be a number, not 'much'"):
        rotate("much")


def test_transforms_go_to_other_processes_and_say_what_they_are():
    tfms = [*get_transforms(flip_vert=True)[0], *rand_pad(2, 8), *rand_resize_crop(8), tilt(1, 0.2), cutout((1, 2), 3)]
    image = picture()
    for tfm in tfms:
        other = pickle.loads(pickle.dumps(tfm))
        assert repr(other) == repr(tfm) and repr(tfm).startswith(f"{tfm.name}(")
        torch.manual_seed(0)
        want = tfm(image)
        torch.manual_seed(0)
        assert torch.equal(other(image), want)
    assert repr(cutout((1, 2), 3)) == "cutout(n_holes=(1, 2), length=3, p=1.0)"


def test_resize_methods_have_names():
    assert ResizeMethod("pad") is ResizeMethod.PAD and ResizeMethod(ResizeMethod.NO) is ResizeMethod.NO


# ---- test-time augmentation

def test_tta_has_v1_s_eight_views():
    train = get_transforms(flip_vert=True)[0] + [cutout()]
    passes = tta_tfms(train, scale=1.5)
    for i, tfms in enumerate(passes):
        assert [t.name for t in tfms] == ["symmetric_warp", "rotate", "brightness", "contrast", "cutout", "zoom",
                                          "crop_pad"] + ["flip_lr"] * (i > 3)
    image = picture(18, 18)
    corners = set()
    for i, tfms in enumerate(tta_tfms([], scale=1.5)):
        view = moved(tfms, image, size=18)
        row, col = 2 * (i & 1) - 1, 2 * (i >> 1 & 1) - 1
        sign = -1 if i > 3 else 1
        want = reference(image, lambda x, y, s=sign, r=row, c=col: (s * (x + c / 2) / 1.5, (y + r / 2) / 1.5), (18, 18))
        assert (view - want).abs().max() < 1 / 255
        corners.add((row, col, sign))
    assert len(corners) == 8
    foreign = [lambda x: x]
    assert all(tfms[0] is foreign[0] for tfms in tta_tfms(foreign))


def test_tta_passes_draw_each_its_own_and_leave_the_loader_unchanged():
    x = torch.stack([picture(18, 18)] * 2)
    inner = TensorLoader(x, torch.arange(2), seed=0)
    inner.seeded = True
    after = []

    def double(batch):
        after.append(batch[0])
        return batch[0] * 2, batch[1]
    dl = DeviceDataLoader(inner, "cpu", [Augment([crop_pad()], 18), double])
    list(dl)
    tfms = [brightness((0.1, 0.9))]
    state, old = dl.state_dict(), list(dl.tfms)
    passes = [list(view) for view in tta_loaders(dl, tfms)]
    assert dl.state_dict() == state and dl.tfms == old
    shifts = [float(p[0][0][i].mean()) for p in passes for i in (0, 1)]
    assert len({round(s, 4) for s in shifts}) == 16 and max(shifts) > 1.2      # doubled, as all batches of this loader
    assert [p[0][1].tolist() for p in passes] == [[0, 1]] * 8
    again = [list(view) for view in tta_loaders(dl, tfms)]
    assert all(torch.equal(a[0][0], b[0][0]) for a, b in zip(passes, again, strict=True))
    with pytest.raises(ValueError, match="needs data whose pictures go through transforms"):
        next(tta_loaders(DeviceDataLoader(inner, "cpu"), tfms))


# ---- in an ImageDataBunch

SIZES = [(40, 30), (33, 50), (64, 64), (24, 31), (70, 90), (35, 35)]


@pytest.fixture
def folder(tmp_path):
    """Twelve smooth pictures of two classes, of various sizes and formats."""
    for i in range(12):
        h, w = SIZES[i % 6]
        small = Image.fromarray(np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8))
        path = tmp_path / "ab"[i % 2]
        path.mkdir(exist_ok=True)
        image = small.resize((w, h), Image.Resampling.BICUBIC)
        image.save(path / f"{i}.{'png' if i % 3 else 'jpg'}")
    return tmp_path


def bunch(folder, ds_tfms=None, **kwargs):
    options = {"valid_pct": 0.25, "seed": 0, "bs": 4, "device": "cpu", "size": 16, **kwargs}
    return ImageDataBunch.from_folder(folder, ds_tfms=get_transforms() if ds_tfms is None else ds_tfms, **options)


def same(a, b):
    a, b = list(a), list(b)
    return len(a) == len(b) > 0 and all(torch.equal(s, t) for p, q in zip(a, b, strict=True)
                                        for s, t in zip(p, q, strict=True))


def test_batches_are_the_same_in_memory_from_disk_and_by_workers(folder):
    data = bunch(folder)
    first, second = list(data.train_dl), list(data.train_dl)
    assert [x.shape for x, _ in first] == [(4, 3, 16, 16)] * 2 and not same(first, second)
    assert len({tuple(image.shape) for image in data.train_ds.images}) > 1
    for kwargs in {"max_memory": 0}, {"max_memory": 0, "num_workers": 2}, {"num_workers": 2}:
        other = bunch(folder, **kwargs)
        assert (other.train_ds.images is None) == ("max_memory" in kwargs)
        assert same(first, other.train_dl)
        assert same(second[1:], other.train_dl.batches(1))      # resumed within a pass
    assert not same(first, bunch(folder, seed=1).train_dl)
    state = data.train_dl.state_dict()
    shown = data.one_batch()
    assert data.train_dl.state_dict() == state and torch.equal(data.one_batch()[0], shown[0])
    assert torch.equal(next(iter(data.train_dl))[0], shown[0])


def test_what_is_not_trained_on_is_cropped_in_the_middle(folder):
    data = bunch(folder)
    assert same(data.valid_dl, data.valid_dl)
    x, _ = data.one_batch(DatasetType.Valid)
    want = [moved([], pixels(path, data.fit), size=16) for path in data.valid_ds.items]
    assert torch.equal(x, torch.stack([image.expand(3, -1, -1) for image in want]))
    assert torch.equal(data.prepare_item(data.valid_ds.items[0]), x[:1])
    assert torch.equal(next(iter(data.test_on(data.valid_ds.items)))[0], x)
    assert torch.equal(next(iter(bunch(folder, ([flip_lr()], None)).valid_dl))[0], x)
    plain = next(iter(bunch(folder, (None, None)).valid_dl))[0]     # PIL resizes these
    assert (plain - x).abs().mean() < 0.03


def test_options_of_the_data_reach_its_transforms(folder):
    white = folder / "a" / "white.png"
    Image.new("RGB", (60, 30), (255, 255, 255)).save(white)
    for how, mode, least in ("pad", "zeros", 0), ("pad", "border", 1), ("crop", "zeros", 1), ("squish", "zeros", 1):
        data = bunch(folder, resize_method=how, padding_mode=mode)
        assert data.prepare_item(white).min() == least, (how, mode)
    with pytest.raises(ValueError, match="no resize method 'cut'"):
        bunch(folder, resize_method="cut")
    wide = bunch(folder, size=(12, 20))
    assert next(iter(wide.train_dl))[0].shape == (4, 3, 12, 20) and wide.size == (12, 20)
    with pytest.raises(ValueError, match="come to the sizes .*: give size="):
        list(bunch(folder, size=None).train_dl)
    assert next(iter(bunch(folder, (rand_pad(2, 8), [crop_pad(8)]), size=None).train_dl))[0].shape == (4, 3, 8, 8)


def test_other_transforms_may_stand_before_and_behind(folder):
    def invert(x):
        return 255 - x
    seen = []

    def look(x):
        seen.append(tuple(x.shape))
        return x
    plain = next(iter(bunch(folder, (None, [crop_pad()])).valid_dl))[0]
    before = next(iter(bunch(folder, (None, [invert, look, crop_pad()])).valid_dl))[0]
    assert torch.allclose(before, 1 - plain, atol=1e-5) and len(set(seen)) > 1
    seen.clear()
    behind = next(iter(bunch(folder, (None, [flip_lr(1.0), look, invert, flip_lr(1.0)])).valid_dl))[0]
    assert (behind - (1 - plain)).abs().mean() < 0.03


def test_pictures_of_one_size_lie_on_the_device_as_one_tensor(tmp_path):
    for i in range(8):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(picture(28, 28, seed=i)[0].numpy()).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    data = bunch(tmp_path, size=None)
    assert isinstance(data.train_dl.dl, TensorLoader) and data.train_ds.images.shape == (6, 1, 28, 28)
    first, second = list(data.train_dl), list(data.train_dl)
    assert first[0][0].shape == (4, 3, 28, 28) and not same(first, second)
    again = bunch(tmp_path, size=None)
    again.train_dl.load_state_dict({**again.train_dl.state_dict(), "passes": 1})
    assert same(second, again.train_dl)


def test_decoding_to_fewer_pixels(tmp_path):
    image = Image.fromarray(picture(6, 8).permute(1, 2, 0).numpy()).resize((80, 60), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.jpg", quality=98)
    for by, size in ((1, (60, 80)), (2, (30, 40)), (4, (15, 20)), (5, (12, 16))):
        want = torch.from_numpy(np.array(image.reduce(by))).permute(2, 0, 1)
        assert torch.equal(pixels(tmp_path / "a.png", lambda h, w, by=by: by), want) and want.shape[1:] == size
        if by < 5:
            jpg = pixels(tmp_path / "a.jpg", lambda h, w, by=by: by)
            assert jpg.shape == want.shape and (jpg.float() - want.float()).abs().mean() < 4
    at_most_four = pixels(tmp_path / "a.jpg", lambda h, w: 5)
    assert at_most_four.shape == (3, 15, 20)


def test_lr_find_leaves_no_trace_in_what_is_drawn(folder):
    data = bunch(folder, bs=2)
    want = list(bunch(folder, bs=2).train_dl)
    layers = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2)]
    learn = fake_learner(data=data, layers=layers, path=folder)
    learn.lr_find(num_it=6)
    assert same(want, data.train_dl)


def test_masks_of_a_data_bunch_move_with_their_pictures(tmp_path):
    for name in ("pictures", "masks"):
        (tmp_path / name).mkdir()
    for i, (h, w) in enumerate(SIZES):
        small = Image.fromarray(np.random.default_rng(i).integers(0, 2, (5, 6), dtype=np.uint8))
        mask = np.array(small.resize((w, h), Image.Resampling.NEAREST))
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
        Image.fromarray(mask * 255).save(tmp_path / "pictures" / f"{i}.png")
    data = (SegmentationItemList.from_folder(tmp_path / "pictures").split_none()
            .label_from_func(lambda p: tmp_path / "masks" / p.name, classes=["no", "yes"])
            .transform(get_transforms(max_rotate=30, max_lighting=0, flip_vert=True), size=20, tfm_y=True)
            .databunch(bs=6, device="cpu", seed=0))
    [(x, y)] = data.train_dl
    assert x.shape == (6, 3, 20, 20) and y.shape == (6, 20, 20) and y.dtype == torch.int64
    sure = (x[:, 0] - 0.5).abs() > 0.3
    assert sure.float().mean() > 0.6 and torch.equal((x[:, 0] > 0.5)[sure], (y > 0)[sure])
