from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, tensor

from minifast import metrics as M
from minifast.callback import Callback, CallbackHandler
from minifast.columns import AverageMetric, WholeSetMetric, as_metric, metric_name
from minifast.loop import validate

LOGITS = tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 2.0, 3.0], [5.0, 4.0, 0.0]])
CLASSES = tensor([0, 1, 0, 1])  # first, first, third and second largest output
QUANTITIES = (M.mae, M.mse, M.rmse, M.msle, M.exp_rmspe, M.explained_variance, M.r2_score)


def measured(metric, outputs: Tensor, targets: Tensor, bs: int) -> float:
    """The metric's column after a validation over batches of `bs`, the last one smaller."""
    handler = CallbackHandler(metrics=[as_metric(metric)])
    handler.state.pbar = SimpleNamespace(track=lambda dl, **_: dl)
    learn = SimpleNamespace(model=nn.Identity(), parallel=None, loss_func=lambda output, target: output.float().mean())
    validate(learn, handler, list(zip(outputs.split(bs), targets.split(bs), strict=True)))
    return handler.state.last_metrics[1]


def quantities(n: int = 23) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(n, 1, generator=g) + 0.5, torch.rand(n, generator=g) + 0.5


# ---- the functions

def test_accuracy_and_error_rate():
    assert M.accuracy(LOGITS, CLASSES) == 0.5
    assert M.error_rate(LOGITS, tensor([0, 1, 2, 1])) == 0.25


def test_accuracy_takes_targets_with_a_dimension_of_one_and_sequences():
    assert M.accuracy(LOGITS, CLASSES[:, None]) == 0.5
    assert M.accuracy(LOGITS.view(2, 2, 3), tensor([[0, 1], [2, 1]])) == 0.75


@pytest.mark.parametrize(("k", "share"), [(1, 0.5), (2, 0.75), (3, 1.0)])
def test_top_k_accuracy(k, share):
    assert M.top_k_accuracy(LOGITS, CLASSES, k=k) == share
    assert M.top_k_accuracy(LOGITS.view(2, 2, 3), CLASSES.view(2, 2), k=k) == share


def test_top_k_accuracy_default_is_five():
    assert M.top_k_accuracy(torch.arange(6.0).repeat(2, 1), tensor([0, 1])) == 0.5


def test_accuracy_thresh():
    outputs, targets = tensor([[0.3, -0.3], [0.7, 2.0]]), tensor([[1, 0], [0, 1]])
    assert M.accuracy_thresh(outputs, targets) == 0.75                   # 0.5 after the sigmoid is 0 before it
    assert M.accuracy_thresh(outputs, targets.float(), sigmoid=False) == 0.5
    assert M.accuracy_thresh(outputs, targets, thresh=0.6) == 0.5        # sigmoid(0.3) is 0.574
    assert M.accuracy_thresh(outputs[:, :1], tensor([1, 0])) == 0.5      # one output a sample


def test_dice_is_a_mean_over_images_and_both_empty_is_right():
    predicted = tensor([[[1, 1], [0, 0]], [[0, 0], [0, 0]], [[1, 0], [0, 0]]])
    outputs = F.one_hot(predicted, 2).movedim(-1, 1).float()
    targets = tensor([[[1, 0], [1, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 1]]])
    assert M.dice(outputs, targets) == pytest.approx((0.5 + 1 + 0) / 3)
    assert M.dice(outputs, targets[:, None], iou=True) == pytest.approx((1 / 3 + 1 + 0) / 3)


def test_fbeta():
    outputs = tensor([[0.9, 0.9, 0.1, 0.1], [0.1, 0.9, 0.9, 0.3], [0.1, 0.1, 0.1, 0.1]])
    targets = tensor([[1, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]])
    # precision and recall: 1/2 and 1, then 1 and 1 (0.3 is above 0.2), then nothing found
    assert M.fbeta(outputs, targets, sigmoid=False) == pytest.approx((5 * 0.5 / (4 * 0.5 + 1) + 1 + 0) / 3)
    assert M.fbeta(outputs, targets, sigmoid=False, beta=1) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert M.fbeta(outputs.logit(), targets) == pytest.approx(M.fbeta(outputs, targets, sigmoid=False).item())


def test_quantities_equal_their_formulae_in_numpy():
    outputs, targets = quantities()
    o, t = outputs.squeeze(1).double().numpy(), targets.double().numpy()
    expected = [np.abs(o - t).mean(), ((o - t) ** 2).mean(), ((o - t) ** 2).mean() ** 0.5,
                ((np.log(1 + o) - np.log(1 + t)) ** 2).mean(),
                (((np.exp(t) - np.exp(o)) / np.exp(t)) ** 2).mean() ** 0.5,
                1 - (t - o).var() / t.var(), 1 - ((t - o) ** 2).sum() / ((t - t.mean()) ** 2).sum()]
    assert [float(f(outputs, targets)) for f in QUANTITIES] == pytest.approx(expected, rel=1e-5)


def test_explained_variance_ignores_a_constant_shift_and_r2_does_not():
    targets = tensor([1.0, 2.0, 3.0, 4.0])
    assert M.explained_variance(targets + 1, targets) == 1
    assert M.r2_score(targets + 1, targets) == pytest.approx(1 - 1 / 1.25)


def test_column_outputs_and_flat_targets_are_not_stretched_to_a_square():
    outputs = tensor([[1.0], [2.0], [3.0]])
    assert [float(f(outputs, tensor([1.0, 2.0, 3.0]))) for f in QUANTITIES] == [0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_are_widened(dtype):
    squared = M.mse(torch.full((3,), 300.0, dtype=dtype), torch.zeros(3, dtype=dtype))
    assert squared.item() == 90000      # float16 ends at 65504; compared as a tensor, 90000 would become inf as well
    share = M.accuracy(torch.eye(2, dtype=dtype).repeat(500, 1)[:999], torch.zeros(999, dtype=torch.long))
    assert share == pytest.approx(500 / 999)
    assert M.fbeta(torch.ones(2, 3, dtype=dtype), torch.ones(2, 3)).dtype == torch.float32
    assert M.accuracy_thresh(torch.ones(2, 3, dtype=dtype), torch.ones(2, 3)) == 1


def test_no_function_waits_for_the_device():
    """A meta tensor has no values: whoever reads one fails."""
    x, y = torch.rand(6, 6, device="meta"), torch.zeros(6, device="meta", dtype=torch.long)
    values = [M.accuracy(x, y), M.error_rate(x, y), M.top_k_accuracy(x, y), M.accuracy_thresh(x, x), M.fbeta(x, x),
              M.dice(x.view(3, 2, 6), y.repeat(3).view(3, 6)), *(f(x, x) for f in QUANTITIES)]
    assert {(v.shape, v.device.type) for v in values} == {(torch.Size(), "meta")}


# ---- bad input

@pytest.mark.parametrize("func", [M.accuracy, M.error_rate, M.accuracy_thresh, partial(M.top_k_accuracy, k=2),
                                  *QUANTITIES])
@pytest.mark.parametrize("shape", [(4, 2), (2, 2), (3, 4), (5,)])
def test_shapes_that_do_not_fit_are_named(func, shape):
    name = "accuracy" if func is M.error_rate else metric_name(func)
    with pytest.raises(ValueError, match=rf"{name}: predictions of shape \(4,.*targets of shape \({shape[0]},"):
        func(LOGITS, torch.zeros(shape))


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match=r"\(4, 1\); for one output use accuracy_thresh"):
        M.accuracy(LOGITS[:, :1], CLASSES)
    with pytest.raises(ValueError, match="k is 5, but the outputs have only 3 classes"):
        M.top_k_accuracy(LOGITS, CLASSES)
    with pytest.raises(TypeError, match="k must be a whole number, not 1.5"):
        M.top_k_accuracy(LOGITS, CLASSES, k=1.5)
    with pytest.raises(ValueError, match=r"two classes.*not \(1, 3, 2, 2\)"):
        M.dice(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match=r"dice: predictions of shape \(1, 2, 2\) .* \(1, 2, 3\)"):
        M.dice(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match=r"same shape \(n, c\), not \(4, 3\) and \(4,\)"):
        M.fbeta(LOGITS, CLASSES)


# ---- from a function to a column

@pytest.mark.parametrize("bs", [1, 3, 4, 23])
@pytest.mark.parametrize("func", QUANTITIES)
def test_a_column_does_not_depend_on_the_batch_size(func, bs):
    outputs, targets = quantities()
    assert measured(func, outputs, targets, bs) == pytest.approx(func(outputs, targets).item(), rel=1e-5)


def test_a_small_last_batch_weighs_less():
    outputs = torch.eye(2)[tensor([0] * 64 + [1] * 2)]
    assert measured(M.accuracy, outputs, torch.zeros(66, dtype=torch.long), 64) == pytest.approx(64 / 66, abs=1e-12)


def test_the_mean_of_many_batches_is_exact():
    """Added up in float32, 20,000 times 0.1 is off in the fifth digit."""
    metric = AverageMetric(lambda output, target: tensor(0.1))
    for _ in range(20_000):
        metric.on_batch_end(None, CLASSES)
    assert metric.compute() == pytest.approx(float(tensor(0.1)), rel=1e-12)


def test_each_epoch_starts_anew_and_keeps_nothing():
    for metric, expected in ((AverageMetric(M.mae), 2.0), (WholeSetMetric(M.mae), 2.0)):
        metric.on_epoch_begin()
        metric.on_batch_end(tensor([9.0]), tensor([0.0]))
        metric.on_epoch_begin()
        metric.on_batch_end(tensor([2.0]), tensor([0.0]))
        assert metric.on_epoch_end([0.5]) == {"last_metrics": [0.5, expected]}
        assert metric.batches == []
        assert metric.on_epoch_end([0.5]) == {"last_metrics": [0.5, None]}     # an epoch without batches


def test_values_may_be_floats_numpy_numbers_and_tensors_of_one_element():
    outputs, targets = quantities(5)
    assert measured(lambda o, t: 0.25, outputs, targets, 2) == 0.25
    one_element = measured(lambda o, t: tensor([len(t)]), outputs, targets, 2)
    sizes = measured(lambda o, t: np.float32(len(t)), outputs, targets, 2)
    assert sizes == one_element == pytest.approx((2 * 2 + 2 * 2 + 1 * 1) / 5)
    assert type(sizes) is float


def test_several_targets_reach_the_function_one_by_one():
    @M.whole_set
    def widest(output, low, high):
        return (high - low).max()

    assert measured_two(widest) == 5
    assert measured_two(lambda output, low, high: (high - low).max()) == (2 * 5 + 1 * 2) / 3


def measured_two(func) -> float:
    metric = as_metric(func)
    metric.on_batch_end(torch.zeros(2), [tensor([0.0, 1.0]), tensor([5.0, 2.0])])
    metric.on_batch_end(torch.zeros(1), [tensor([0.0]), tensor([2.0])])
    return metric.on_epoch_end([])["last_metrics"][0]


def test_metrics_hold_no_graph():
    output = torch.ones(3, requires_grad=True)
    for metric in (AverageMetric(M.mse), WholeSetMetric(M.mse)):
        metric.on_batch_end(output, torch.zeros(3))
        assert not metric.batches[0][0].requires_grad


@pytest.mark.parametrize(("value", "error", "words"), [
    (tensor([1.0, 2.0]), ValueError, r"the metric odd returned a tensor of shape \(2,\) instead of one number"),
    (None, TypeError, "the metric odd returned None, which is no number"),
    ("much", TypeError, "the metric odd returned 'much'"),
])
def test_a_value_that_is_no_number_is_named(value, error, words):
    def odd(output, target):
        return value

    with pytest.raises(error, match=words):
        AverageMetric(odd).on_batch_end(torch.zeros(2), torch.zeros(2))
    metric = WholeSetMetric(odd)
    metric.on_batch_end(torch.zeros(2), torch.zeros(2))
    with pytest.raises(error, match=words):
        metric.on_epoch_end([])


def test_names():
    class TopPrecision:
        def __call__(self, output, target):
            return 0.0

    named = partial(M.top_k_accuracy, k=1)
    named.__name__ = "top_1"
    metrics = [M.accuracy, M.mae, partial(partial(M.top_k_accuracy), k=2), named, TopPrecision(), nn.L1Loss()]
    names = ["accuracy", "mean_absolute_error", "top_k_accuracy", "top_1", "top_precision", "l1_loss"]
    assert [as_metric(m).name for m in metrics] == names


def test_as_metric_takes_what_is_no_mean_as_a_whole():
    assert [type(as_metric(f)) for f in (M.accuracy, M.mse, M.rmse, partial(M.r2_score))] == [
        AverageMetric, AverageMetric, WholeSetMetric, WholeSetMetric]
    given = Callback()
    assert as_metric(given) is given


@pytest.mark.parametrize(("metric", "words"), [
    (AverageMetric, "not the class AverageMetric; make an instance"),
    (partial(nn.L1Loss, reduction="sum"), "not the class L1Loss"),
    ("accuracy", "not 'accuracy'; give the function itself"),
    (None, "not None"),
])
def test_as_metric_refuses(metric, words):
    with pytest.raises(TypeError, match=words):
        as_metric(metric)
