"""The loss of a set, and the step over several batches, do not depend on how the set is cut into batches."""
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim, tensor

from minifast.callback import Callback
from minifast.callbacks import GradientAccumulation, LossMetrics, MixedTargets, MixUpLoss
from minifast.data import DataBunch
from minifast.denominators import batch_weight, sample_weights, unreduced
from minifast.learner import Learner
from minifast.losses import BCEWithLogitsFlat, CrossEntropyFlat, LabelSmoothingCrossEntropy, MSELossFlat

N, C, T = 22, 3, 4      # samples, classes, positions of a sequence; batches of 7 leave a last one of one sample
WEIGHT = tensor([0.2, 1.0, 5.0])


class Masked(nn.Module):
    """A loss that is a mean over what its mask lets through, and says so."""

    def forward(self, output, target, mask):
        return ((output.squeeze(-1) - target)**2 * mask).sum() / mask.sum().clamp(min=1)

    def denominator(self, output, target, mask):
        return mask.sum()


class Weighted(nn.CrossEntropyLoss):
    """One of a user's own, by inheritance."""

    def forward(self, output, target):
        return super().forward(output.movedim(-1, 1), target)


def parts(kind):
    """(inputs, targets, outputs a sample has) of a kind of loss."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(N, 6, generator=g)
    if kind == "classes":
        y = torch.randint(C, (N,), generator=g)
        return x, [y.masked_fill(torch.arange(N) % 3 == 1, -100)], (C,)
    if kind in ("sequences", "channels"):
        y = torch.randint(C, (N, T), generator=g)
        y = y.masked_fill((torch.arange(N * T).view(N, T) % 5 < 2) | (torch.arange(N)[:, None] == 8), -100)
        return x, [y], (T, C) if kind == "sequences" else (C, T)
    if kind == "shares":
        return x, [torch.rand(N, C, generator=g).softmax(1)], (C,)
    if kind == "numbers":
        return x, [torch.randn(N, generator=g)], (1,)
    if kind == "labels":
        return x, [torch.randint(2, (N, C), generator=g).float()], (C,)
    if kind == "logs":      # for Kullback-Leibler
        return x, [torch.rand(N, C, generator=g).softmax(1)], (C,)
    return x, [torch.randn(N, generator=g), (torch.arange(N) % 4 > 0).float()], (1,)    # masked


CASES = {
    "cross-entropy": (nn.CrossEntropyLoss(), "classes"),
    "class weights": (nn.CrossEntropyLoss(weight=WEIGHT), "classes"),
    "another index": (nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=2), "shifted"),
    "smooth": (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2), "classes"),
    "channels": (nn.CrossEntropyLoss(weight=WEIGHT), "channels"),
    "functional": (F.cross_entropy, "channels"),
    "partial": (partial(partial(F.cross_entropy, weight=WEIGHT), ignore_index=-100), "classes"),
    "partial of an instance": (partial(CrossEntropyFlat(weight=WEIGHT)), "sequences"),
    "flat": (CrossEntropyFlat(weight=WEIGHT), "sequences"),
    "flat, axis 1": (CrossEntropyFlat(weight=WEIGHT, axis=1), "channels"),
    "flat, smooth": (LabelSmoothingCrossEntropy(), "sequences"),
    "inherited": (Weighted(weight=WEIGHT), "sequences"),
    "nll": (nn.NLLLoss(weight=WEIGHT), "classes"),
    "functional nll": (partial(F.nll_loss, weight=WEIGHT), "channels"),
    "shares": (nn.CrossEntropyLoss(weight=WEIGHT), "shares"),
    "sum": (nn.CrossEntropyLoss(weight=WEIGHT, reduction="sum"), "classes"),
    "functional sum": (partial(F.cross_entropy, reduction="sum"), "classes"),
    "numbers": (MSELossFlat(), "numbers"),
    "a sum of numbers": (MSELossFlat(reduction="sum"), "numbers"),
    "labels": (BCEWithLogitsFlat(pos_weight=tensor(2.0)), "labels"),
    "torch's labels": (nn.BCEWithLogitsLoss(weight=WEIGHT), "labels"),
    "margins": (nn.MultiLabelSoftMarginLoss(weight=WEIGHT), "labels"),
    "huber": (F.smooth_l1_loss, "labels"),
    "batchmean": (nn.KLDivLoss(reduction="batchmean"), "logs"),
    "its own": (Masked(), "masked"),
}
cases = pytest.mark.parametrize("loss_func, kind", CASES.values(), ids=CASES)


def job(kind):
    if kind == "shifted":   # class 2 is ignored
        x, [y], shape = parts("classes")
        return x, [y.where(y >= 0, 2)], shape
    return parts(kind)


def model_for(x, shape):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(x.shape[1], int(np.prod(shape))), nn.Unflatten(1, shape)).double()


def batches(x, targets, bs):
    return [(x[i:i + bs].double(), [as_double(t[i:i + bs]) for t in targets]) for i in range(0, len(x), bs)]


def as_double(t):
    return t.double() if t.is_floating_point() else t


@pytest.fixture(autouse=True)
def double_weights():
    torch.set_default_dtype(torch.float64)
    for loss_func, _ in CASES.values():
        core = loss_func.func if isinstance(loss_func, partial) else loss_func
        if isinstance(core, nn.Module):
            core.double()
    yield
    torch.set_default_dtype(torch.float32)


def learner(loss_func, kind, bs, valid=True, **kwargs):
    x, targets, shape = job(kind)
    if isinstance(loss_func, partial) and "weight" in loss_func.keywords:
        loss_func = partial(loss_func, weight=loss_func.keywords["weight"].double())
    data = DataBunch(batches(x, targets, bs), batches(x, targets, bs) if valid else None, loss_func=loss_func)
    return Learner(data, model_for(x, shape), opt_func=optim.SGD, wd=0.0, silent=True, **kwargs)


def loss_of_all(learn, kind):
    x, targets, _ = job(kind)
    [(x, targets)] = batches(x, targets, len(x))
    with torch.no_grad():
        return float(learn.data.loss_func(learn.model(x), *targets))


@cases
@pytest.mark.parametrize("bs", [1, 7, 64])
def test_the_loss_of_a_set(loss_func, kind, bs):
    learn = learner(loss_func, kind, bs)
    want = loss_of_all(learn, kind)
    assert learn.validate()[0] == pytest.approx(want, abs=1e-6, rel=1e-6)
    learn.fit(1, 1e-12)   # nothing is learned: train_loss is that of the same weights
    assert learn.recorder.train_losses[0] == pytest.approx(want, abs=1e-6, rel=1e-6)
    assert learn.recorder.val_losses[0] == pytest.approx(want, abs=1e-6, rel=1e-6)
    assert np.isfinite(learn.recorder.losses[-1])


@cases
@pytest.mark.parametrize("bs", [1, 7])
def test_accumulated_gradients_are_the_large_batch_s(loss_func, kind, bs):
    weights = []
    for size, n_step in ((64, 1), (bs, 99)):
        learn = learner(loss_func, kind, size, valid=False)
        learn.fit(2, 1e-125, callbacks=[GradientAccumulation(learn, n_step)])
        weights.append(torch.cat([p.detach().flatten() for p in learn.model.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-6, atol=1e-6)


@cases
def test_samples_make_up_the_batch(loss_func, kind):
    if kind == "masked":
        pytest.skip("it has no reduction")
    learn = learner(loss_func, kind, 64)
    [(x, targets)] = batches(*job(kind)[:2], 64)
    with torch.no_grad():
        output = learn.model(x)
    loss_func = learn.data.loss_func
    losses, weights = unreduced(loss_func)(output, *targets), sample_weights(loss_func)(output, *targets)
    assert losses.shape == (N,) and losses.isfinite().all()
    if batch_weight(loss_func, output, targets) is None:
        total = losses.sum()
    else:
        total = losses.mean() if weights is None else (losses * weights).sum() / weights.sum()
    assert float(total) == pytest.approx(float(loss_func(output, *targets)), rel=1e-6)
    one = loss_func(output[2:3], *(t[2:3] for t in targets))     # of a sample alone
    assert float(losses[2]) == pytest.approx(float(one), rel=1e-6)


@cases
def test_mixing_a_batch_with_itself_changes_no_loss(loss_func, kind):
    if kind == "masked":
        pytest.skip("it has no reduction")
    learn = learner(loss_func, kind, 64)
    [(x, targets)] = batches(*job(kind)[:2], 64)
    output, loss_func = learn.model(x).detach(), learn.data.loss_func
    mixed = MixedTargets(targets, targets, torch.rand(N))
    want, loss = loss_func(output, *targets), MixUpLoss(loss_func)
    torch.testing.assert_close(loss(output, mixed), want)
    torch.testing.assert_close(loss(output, *targets), want)
    for given in ([mixed], targets):
        got, own = (batch_weight(f, output, t) for f, t in ((loss, given), (loss_func, targets)))
        assert (got is None) == (own is None) and (own is None or float(got) == pytest.approx(float(own)))


# ---- a batch in which nothing counts

def empty_job(first, loss_func=None):
    x = torch.randn(24, 4, dtype=torch.float64)
    y = (x[:, 0] > 0).long()
    y[slice(0, 8) if first else slice(8, 16)] = -100
    data = DataBunch(batches(x, [y], 4), batches(x, [y], 4), loss_func=loss_func or CrossEntropyFlat())
    return Learner(data, nn.Linear(4, 2).double(), silent=True), x, y


class OnDevice(CrossEntropyFlat):
    """As a GPU gives its weights: tensors that are not looked at."""

    def denominator(self, output, target):
        return (target != -100).sum()


@pytest.mark.parametrize("loss_func", [None, OnDevice()])
@pytest.mark.parametrize("first", [True, False])
def test_a_batch_in_which_all_is_ignored_counts_for_nothing(first, loss_func):
    learn, x, y = empty_job(first, loss_func)
    learn.fit(2, 1e-12, wd=0.0)       # the guard against NaN is on
    rec = learn.recorder
    with torch.no_grad():
        want = float(F.cross_entropy(learn.model(x), y))
    assert rec.train_losses == pytest.approx([want] * 2) and rec.val_losses == pytest.approx([want] * 2)
    empty = np.tile(np.arange(6) < 2 if first else (np.arange(6) // 2 == 1), 2)
    assert np.isnan(rec.raw_losses[empty]).all() and np.isfinite(rec.raw_losses[~empty]).all()
    assert np.isfinite(rec.losses[2 if first else 0:]).all()
    if not first:
        assert rec.losses[2] == rec.losses[3] == rec.losses[1]
    for p in learn.model.parameters():
        assert p.isfinite().all()


@pytest.mark.parametrize("loss_func", [None, OnDevice()])
@pytest.mark.parametrize("n_step", [2, 4])
def test_nor_does_it_for_accumulation(n_step, loss_func):
    learn, x, y = empty_job(False, loss_func)
    plain = Learner(DataBunch(batches(x[y >= 0], [y[y >= 0]], 16 if n_step == 99 else 8), loss_func=CrossEntropyFlat()),
                    nn.Linear(4, 2).double(), opt_func=optim.SGD, silent=True)
    plain.model.load_state_dict(learn.model.state_dict())
    learn.opt_func = optim.SGD
    if n_step == 2:     # the empty window makes a step of nothing
        learn.fit(1, 0.1, wd=0.0, callbacks=[GradientAccumulation(learn, n_step)])
        plain.fit(1, 0.1, wd=0.0)
        torch.testing.assert_close(learn.model.weight, plain.model.weight)
    learn.fit(1, 0.1, wd=0.0, callbacks=[GradientAccumulation(learn, n_step)])
    assert learn.model.weight.isfinite().all()


def test_nor_for_the_finder():
    learn, *_ = empty_job(True)
    found = learn.lr_find(num_it=40)
    assert np.isfinite(found.losses).all() and np.isfinite(found.raw_losses).all()
    # four in six batches count, up to where it ends
    assert 20 <= len(found.losses) == len(found.lrs) <= 27


def test_nothing_but_ignored_targets_has_no_loss():
    learn, x, y = empty_job(True)
    y.fill_(-100)
    learn.data = DataBunch(batches(x, [y], 4), batches(x, [y], 4), loss_func=CrossEntropyFlat())
    learn.fit(1, 1e-12)
    assert learn.recorder.train_losses == learn.recorder.val_losses == [None]
    assert learn.validate() == [None]


def test_a_true_nan_still_ends_the_fit():
    class Spoils(Callback):
        def on_loss_begin(self, train, num_batch, last_output):
            return {"last_output": last_output * float("nan")} if train and num_batch == 2 else None

    learn, *_ = empty_job(False)
    with pytest.raises(FloatingPointError, match="batch 2"):
        learn.fit(1, 1e-3, callbacks=[Spoils()])


# ---- who else takes a mean

def test_the_parts_of_a_loss_are_means_over_what_it_is_one_over():
    class Parts(CrossEntropyFlat):
        metric_names = ["again"]

        def forward(self, output, target):
            loss = super().forward(output, target)
            self.metrics = {"again": loss.detach()}
            return loss

    learn = learner(Parts(weight=WEIGHT.double()), "sequences", 7)
    learn.fit(1, 1e-12, callbacks=[LossMetrics(learn)])
    assert learn.recorder.metrics[0][0] == learn.recorder.val_losses[0]
    assert learn.recorder.val_losses[0] == pytest.approx(loss_of_all(learn, "sequences"))


def test_a_compiled_loss_is_the_loss():
    class Compiled:     # as torch.compile returns it
        def __init__(self, inner):
            self._torchdynamo_orig_callable = inner

    target = tensor([0, 1, -100])
    assert batch_weight(Compiled(F.cross_entropy), torch.zeros(3, 2), target) == 2
    holder = nn.Module()
    holder._orig_mod = nn.CrossEntropyLoss(ignore_index=1)
    assert batch_weight(holder, torch.zeros(3, 2), tensor([0, 1, 1])) == 1


def test_weights_in_any_type_are_counted_exactly():
    target = torch.randint(3, (3000,))
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        output = torch.randn(3000, 3, dtype=dtype, requires_grad=True)
        loss = F.cross_entropy(output, target)
        assert batch_weight(F.cross_entropy, output, target, loss=loss) == 3000
    small = target.to(torch.uint8)
    assert batch_weight(CrossEntropyFlat(ignore_index=156), output, small) == 3000
    assert batch_weight(CrossEntropyFlat(), output, torch.full((5,), 156, dtype=torch.uint8)) == 5
    assert batch_weight(nn.CrossEntropyLoss(weight=WEIGHT.bfloat16()), output, torch.full((3000,), 1)) == 3000


def test_what_torch_keeps_is_what_one_counts():
    for shape, kind in (((N, C), "classes"), ((N, C, T), "channels")):
        output, [target] = torch.randn(shape, requires_grad=True), parts(kind)[1]
        for loss_func in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=WEIGHT), nn.NLLLoss(weight=WEIGHT),
                          nn.CrossEntropyLoss(label_smoothing=0.1)):
            loss_func.double()
            kept = batch_weight(loss_func, output, target, loss=loss_func(output, target))
            assert kept == pytest.approx(batch_weight(loss_func, output, target), rel=1e-12)

