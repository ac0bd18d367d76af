"""A run on augmented pictures, cut off in an epoch, goes on exactly: in memory and beyond it, with workers too."""
import numpy as np
import pytest
import torch
from PIL import Image

from minifast.callback import Callback
from minifast.callbacks.checkpoint import Checkpoint
from minifast.layers import simple_cnn
from minifast.learner import Learner
from minifast.vision.image_list import ImageList
from minifast.vision.transform import get_transforms


@pytest.fixture
def folder(tmp_path):
    """Pictures of mixed sizes, formats and orientations."""
    exif = Image.new("RGB", (1, 1)).getexif()
    exif[0x0112] = 6
    for i in range(20):
        rng = np.random.default_rng(i)
        place = tmp_path / "p" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        im = Image.fromarray(rng.integers(0, 256, (12 + i % 5, 15 + i % 3, 3), dtype=np.uint8))
        if i % 4 == 0:
            im.save(place / f"{i}.jpg", exif=exif)
        elif i % 4 == 1:
            im.convert("L").save(place / f"{i}.png")
        elif i % 4 == 2:
            im.convert("P").save(place / f"{i}.gif")
        else:
            im.convert("RGBA").save(place / f"{i}.webp", lossless=True)
    return tmp_path


class Cut(Callback):
    """A power cut after training batch `at`: of the class, so that a resumed run does not take it over."""

    at, batches = None, 0

    def on_batch_end(self, train, iteration):
        Cut.batches += train
        if train and iteration == self.at:
            raise RuntimeError("power cut")


def learner(folder, name, **kwargs):
    torch.manual_seed(0)
    data = (ImageList.from_folder(folder / "p").split_by_rand_pct(0.2, seed=42).label_from_folder()
            .transform(get_transforms(flip_vert=True), size=8).databunch(bs=4, seed=1, device="cpu", **kwargs)
            .normalize(([.5] * 3, [.25] * 3)))
    return Learner(data, simple_cnn((3, 4, 2)), path=folder / name, silent=True)


@pytest.mark.parametrize("kwargs", [{}, {"max_memory": 0}, {"max_memory": 0, "num_workers": 2}])
def test_it_goes_on_exactly(folder, kwargs):
    whole = learner(folder, "whole")
    whole.fit(2, 1e-2, checkpoint="run")
    cut = learner(folder, "cut", **kwargs)
    Cut.at = 5
    with pytest.raises(RuntimeError, match="power cut"):
        cut.fit(2, 1e-2, callbacks=[Checkpoint(cut, "run", every=1), Cut()])
    Cut.at, Cut.batches = None, 0
    again = learner(folder, "cut", **kwargs)
    again.fit(2, 1e-2, callbacks=[Checkpoint(again, "run", every=1), Cut()])
    assert Cut.batches == 3
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
