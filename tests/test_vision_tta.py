import pytest
import torch
from PIL import Image
from torch import nn

from minifast.learner import Learner
from minifast.vision import ImageDataBunch, get_transforms


@pytest.mark.parametrize("tfms", [get_transforms()[0], [lambda x: x.flip(-1)]], ids=["v1's", "a function"])
def test_views_of_pictures_are_averaged_and_leave_no_trace(tmp_path, tfms):
    for part in ("train", "valid"):
        for k, name in enumerate("ab"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(3):
                image = Image.new("RGB", (12, 12), (40 * i, 90 * k, 0))
                image.paste((255, 255, 255), (0, 0, 5, 12))
                image.save(tmp_path / part / name / f"{i}.png")
    data = ImageDataBunch.from_folder(tmp_path, ds_tfms=(tfms, None), size=12, bs=4, seed=0, device="cpu")
    learn = Learner(data, nn.Sequential(nn.Flatten(), nn.Linear(432, 2)), silent=True)
    before = [dl.state_dict() for dl in data.dls]
    plain, mean, targets = learn.TTA(beta=None)
    averaged, same = learn.tta()
    assert torch.equal(plain, learn.get_preds()[0]) and torch.equal(targets, same)
    assert torch.allclose(averaged, 0.4 * plain + 0.6 * mean, atol=1e-6) and (mean - plain).abs().min() > 1e-6
    assert [dl.state_dict() for dl in data.dls] == before and torch.equal(learn.TTA()[0], averaged)
