"""Looking at pictures that are data, and at what a model says of several labels."""
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from minifast.fakes import fake_pictures
from minifast.vision import *


def test_statistics_of_a_batch(tmp_path):
    data = fake_pictures(tmp_path / "p", bs=16)
    x, _ = data.one_batch()
    mean, std = data.batch_stats()
    assert torch.allclose(mean, x.mean((0, 2, 3))) and torch.allclose(std, x.transpose(0, 1).flatten(1).std(1))
    data.normalize(data.batch_stats())
    mean, std = data.batch_stats()
    assert mean.abs().max() < 0.1 and (std - 1).abs().max() < 0.1


def test_one_item_is_prepared_as_for_validation(tmp_path):
    data = fake_pictures(tmp_path / "p").normalize(imagenet_stats)
    file = get_image_files(tmp_path / "p", recurse=True)[0]
    x, y = data.one_item(file)
    assert torch.equal(x, data.prepare_item(file)) and y.tolist() == [0]
    x, _ = data.one_item(file, detach=True, denorm=True, cpu=True)
    assert torch.allclose(x[0], open_image(file), atol=1e-6)


def test_top_losses_of_several_labels(tmp_path):
    rng = np.random.default_rng(0)
    labels = [["red"], ["red", "blue"], ["blue"], []] * 4
    for i, mine in enumerate(labels):
        pixels = rng.integers(0, 60, (24, 24, 3))
        pixels[..., 0] += 190 * ("red" in mine)
        pixels[..., 2] += 190 * ("blue" in mine)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{i:02}.png")
    data = ImageDataBunch.from_lists(tmp_path, get_image_files(tmp_path), labels, 0.5, bs=4, seed=0, device="cpu")
    learn = Learner(data, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), silent=True)
    with torch.no_grad():   # blue by its channel, and everything is red
        learn.model[2].weight.copy_(torch.tensor([[0.0, 0, 9], [0, 0, 0]]))
        learn.model[2].bias.copy_(torch.tensor([-4.0, 4.0]))
    interp = learn.interpret()
    figure = interp.plot_multi_top_losses(2, return_fig=True)
    titles = [ax.get_title().split("\n") for ax in figure.axes[:2]]
    losses, rows = interp.top_losses(2)
    for title, row, loss in zip(titles, rows, losses, strict=True):
        actual = [name for name, yes in zip(data.classes, interp.y_true[row], strict=True) if yes]
        assert "red" not in actual and title[0] == ("; ".join(actual) or "nothing")
        assert title[1].endswith("red") and title[2] == f"{float(loss):.2f} / red: 0.98"
    plt.close(figure)
    with pytest.raises(ValueError, match="do not have several labels each"):
        Learner(fake_pictures(tmp_path / "p"), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)),
                silent=True).interpret().plot_multi_top_losses()


def test_a_heat_map_that_is_too_coarse_is_said(tmp_path):
    data = fake_pictures(tmp_path / "p", size=64)
    learn = cnn_learner(data, models.resnet18, pretrained=False, silent=True)
    with pytest.warns(UserWarning, match="no heat map: the last convolution has 2x2 positions, fewer than .*=16"):
        figure = learn.interpret().plot_top_losses(2, heatmap=True, return_fig=True)
    assert all(len(ax.images) == 1 for ax in figure.axes)
    figure = learn.interpret().plot_top_losses(2, heatmap=True, heatmap_thresh=4, return_fig=True)
    assert all(len(ax.images) == 2 for ax in figure.axes)
    plt.close("all")


def test_a_picture_alone_looks_like_one(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    picture = open_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(picture._repr_png_())
    shown = Image.open(tmp_path / "b.png")
    assert shown.size == (150, 100)     # enlarged, each pixel a square
    assert torch.equal(open_image(shown.resize((30, 20), Image.Resampling.NEAREST)), picture)
    assert repr(picture) == "Picture(3, 20, 30)" and type(picture.mean(0)) is torch.Tensor
    figure = picture.show(title="noise", return_fig=True)
    assert figure.axes[0].get_title() == "noise" and len(figure.axes[0].images) == 1
    with pytest.raises(ValueError, match=r"a picture has the shape .*, not \(2, 4, 4\)"):
        show_image(torch.zeros(2, 4, 4))
    data = fake_pictures(tmp_path / "p", size=20)
    learn = Learner(data, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), silent=True)
    small = open_image(tmp_path / "a.png", 20)
    assert torch.equal(learn.predict(small)[2], learn.predict(small.as_subclass(torch.Tensor))[2])
    plt.close("all")
