import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from minifast.data import DataBunch
from minifast.fakes import fake_learner
from minifast.interpret import ClassificationInterpretation, _class_activation
from minifast.learner import Learner
from minifast.losses import BCEWithLogitsFlat, CrossEntropyFlat, MSELossFlat

PREDS = torch.tensor([[.9, .1, .0], [.2, .7, .1], [.6, .3, .1], [.1, .8, .1], [.0, .9, .1]])
TRUE = torch.tensor([0, 1, 1, 2, 2])


@pytest.fixture
def found():
    learn = fake_learner()
    learn.data.classes = ["a", "b", "c"]
    return ClassificationInterpretation(learn, PREDS, TRUE, torch.tensor([.1, .3, 2., 1., 3.]))


def test_rows_are_actual_and_columns_predicted(found):
    assert found.confusion_matrix().tolist() == [[1, 0, 0], [1, 1, 0], [0, 2, 0]]
    assert found.pred_class.tolist() == [0, 1, 0, 1, 1]


def test_the_most_frequent_confusion_comes_first(found):
    assert found.most_confused() == [("c", "b", 2), ("b", "a", 1)]
    assert found.most_confused(min_val=2) == [("c", "b", 2)]


def test_top_losses_and_the_smallest(found):
    values, indices = found.top_losses(2)
    assert values.tolist() == [3., 2.] and indices.tolist() == [4, 2]
    assert found.top_losses(1, largest=False)[1].tolist() == [0] and len(found.top_losses()[0]) == 5


def test_the_picture_shows_every_count(found):
    figure = found.plot_confusion_matrix(return_fig=True, figsize=(3, 4), dpi=60)
    [axis] = figure.axes
    assert [t.get_text() for t in axis.texts] == ["1", "0", "0", "1", "1", "0", "0", "2", "0"]
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title()) == ("Predicted", "Actual", "Confusion matrix")
    assert figure.get_size_inches().tolist() == [3, 4] and figure.dpi == 60


def test_shares_in_place_of_counts(found):
    [axis] = found.plot_confusion_matrix(True, "Where", norm_dec=1, return_fig=True).axes
    assert [t.get_text() for t in axis.texts] == ["1.0", "0.0", "0.0", "0.5", "0.5", "0.0", "0.0", "1.0", "0.0"]
    assert axis.get_title() == "Where"
    [axis] = found.plot_confusion_matrix(plot_txt=False, return_fig=True).axes
    assert len(axis.texts) == 0


def test_interpret_uses_the_learners_predictions_and_leaves_its_record():
    learn = fake_learner()
    learn.fit(2, 0.1)
    losses = learn.recorder.losses
    found = learn.interpret()
    preds, targets, each = learn.get_preds(with_loss=True)
    assert torch.equal(found.preds, preds) and found.classes == [0, 1, 2, 3]
    assert found.top_losses(1)[0].item() == pytest.approx(float(each.max()))
    assert int(found.confusion_matrix().trace()) == int((preds.argmax(1) == targets).sum())
    assert learn.recorder.losses.tolist() == losses.tolist() and len(losses) == 4


X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def interpreted(loss, y, n_out, scale=9.0, axis=None, classes=None):
    model = nn.Linear(4, n_out, bias=False)
    model.weight.data = torch.zeros(n_out, 4)
    model.weight.data[-1, 0] = scale
    ds = TensorDataset(X, y)
    return Learner(DataBunch.create(ds, ds, bs=8, device="cpu", loss_func=loss, classes=classes), model,
                   silent=True).interpret()


@pytest.mark.parametrize("loss, y, n_out", [
    (CrossEntropyFlat(), Y[:, None], 2), (CrossEntropyFlat(), Y, 2), (BCEWithLogitsFlat(), Y.float()[:, None], 1),
    (BCEWithLogitsFlat(), Y.float(), 1), (nn.CrossEntropyLoss(), torch.nn.functional.one_hot(Y).float(), 2)])
def test_targets_in_any_shape(loss, y, n_out):
    found = interpreted(loss, y, n_out)
    assert found.confusion_matrix().tolist() == [[int((Y == 0).sum()), 0], [0, int((Y == 1).sum())]]
    assert found.classes == [0, 1] and found.most_confused() == []


def test_ignored_targets_are_left_out():
    y = Y.clone()
    y[:7] = -100
    assert interpreted(CrossEntropyFlat(), y, 2).confusion_matrix().sum() == 33


def test_one_channel_of_labels_is_a_mask_of_two_classes():
    x = torch.rand(6, 1, 4, 4) - 0.5
    ds = TensorDataset(x, (x > 0).float())
    learn = Learner(DataBunch.create(ds, ds, bs=4, device="cpu", loss_func=BCEWithLogitsFlat()), nn.Conv2d(1, 1, 1),
                    silent=True)
    with torch.no_grad():
        learn.model.weight.fill_(1)
        learn.model.bias.fill_(0)
    on = int((x > 0).sum())
    assert learn.interpret().confusion_matrix().tolist() == [[96 - on, 0], [0, on]]


@pytest.mark.parametrize("loss, y, n_out, match", [
    (MSELossFlat(), X[:, :1], 1, r"the outputs, of shape \(40, 1\), are quantities \(the loss is MSELossFlat\)"),
    (BCEWithLogitsFlat(), torch.zeros(40, 3), 3, "several labels"),
])
def test_what_is_about_classes_says_so(loss, y, n_out, match):
    found = interpreted(loss, y, n_out)
    for about_classes in (found.confusion_matrix, found.most_confused, found.plot_confusion_matrix):
        with pytest.raises(ValueError, match=match):
            about_classes()
    assert len(found.top_losses(3)[0]) == 3


def pictures(loss_func=None, y=None, classes=("dark", "light"), model=None):
    torch.manual_seed(0)
    x = torch.rand(12, 3, 8, 8) * torch.linspace(0.1, 1, 12)[:, None, None, None]
    y = (torch.arange(12) >= 6).long() if y is None else y
    ds = TensorDataset(x, y)
    model = model or nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                   nn.Linear(4, 2))
    data = DataBunch.create(ds, ds, bs=5, device="cpu", loss_func=loss_func or CrossEntropyFlat(), classes=classes)
    return Learner(data, model, silent=True)


def test_top_losses_are_drawn_with_their_pictures():
    learn = pictures()
    found = learn.interpret()
    losses, rows = found.top_losses(3)
    before = [p.clone() for p in learn.model.parameters()]
    for heatmap, drawn in ((False, 1), (True, 2)):
        figure = found.plot_top_losses(3, heatmap=heatmap, return_fig=True)
        axes = [axis for axis in figure.axes if axis.images]
        assert len(axes) == 3 and [len(axis.images) for axis in axes] == [drawn] * 3
        picture = learn.data.valid_ds.tensors[0][rows[0]]
        assert np.allclose(axes[0].images[0].get_array(), picture.permute(1, 2, 0))
        name = found.classes[int(found.pred_class[rows[0]])]
        actual = int(found.y_true[rows[0]])
        assert axes[0].get_title() == (f"{name} / {found.classes[actual]}\n{losses[0]:.2f} / "
                                       f"{found.preds[rows[0], actual]:.2f}")
    assert all(map(torch.equal, before, learn.model.parameters())) and learn.model[0].weight.grad is None
    assert not learn.model[0]._forward_hooks


def test_the_heat_map_is_grad_cam():
    learn = pictures()
    x = learn.data.valid_ds.tensors[0][:4].clone()
    maps = _class_activation(learn, x, 16)
    acts = learn.model[0](x)
    # behind the convolution: ReLU, mean over 64 positions, linear; so the gradient is the weight / 64 where it is > 0
    weight = learn.model[4].weight[learn.model(x).argmax(1)]
    share = (acts > 0).float().mean((2, 3)) * weight / 64
    assert torch.allclose(maps, (acts * share[:, :, None, None]).sum(1).relu(), atol=1e-6)
    with pytest.warns(UserWarning, match="there is no heat map: .* 8x8 positions, fewer than heatmap_thresh=65"):
        assert _class_activation(learn, x, 65) is None
    flat = pictures(model=nn.Sequential(nn.Flatten(), nn.Linear(192, 2)))
    with pytest.raises(ValueError, match="a heat map needs a convolution"):
        flat.interpret().plot_top_losses(2, heatmap=True)


@pytest.mark.parametrize("loss, y, classes, title", [
    (CrossEntropyFlat(), None, ["dark", "light"], "dark\n"),
    (MSELossFlat(), torch.full((12, 2), 0.5), None, "0.5, 0.5\n"),
    (BCEWithLogitsFlat(), torch.tensor([[1.0, 1.0]]).repeat(12, 1), ["sea", "sun"], "sea; sun\n"),
])
def test_results_have_the_target_over_the_prediction(loss, y, classes, title):
    learn = pictures(loss, y, classes)
    figure = learn.show_results(rows=3, return_fig=True)
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == 9 and drawn[0].get_title().startswith(title)
    preds = learn.get_preds()[0]
    if classes and loss is not None and isinstance(loss, CrossEntropyFlat):
        assert [a.get_title().split("\n")[1] for a in drawn] == [classes[i] for i in preds.argmax(1)[:9]]


def test_results_of_masks_are_drawn_over_the_pictures():
    learn = pictures(CrossEntropyFlat(axis=1), torch.randint(0, 2, (12, 8, 8)), model=nn.Conv2d(3, 2, 1))
    figure = learn.show_results(rows=2, return_fig=True)
    axes = [axis for axis in figure.axes if axis.images]
    assert len(axes) == 8 and [len(axis.images) for axis in axes] == [2] * 8
    assert {axis.images[1].get_clim() for axis in axes} == {(0, 9)}    # a class has one colour in all
    target, said = learn.data.valid_ds.tensors[1][0], learn.get_preds()[0].argmax(1)[0]
    assert np.array_equal(axes[0].images[1].get_array(), target) and np.array_equal(axes[1].images[1].get_array(), said)


def test_what_is_no_picture_is_not_drawn():
    with pytest.raises(ValueError, match="only pictures can be drawn"):
        fake_learner().show_results()
