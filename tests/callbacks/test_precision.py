"""16-bit training: where autocast is on, what the loss and the optimizer see, and how overflows are dealt with."""
import pytest
import torch
from torch import nn, optim

from minifast.callback import Callback, LearnerCallback
from minifast.callbacks.gradients import GradientAccumulation, GradientClipping
from minifast.callbacks.precision import MixedPrecision
from minifast.fakes import fake_learner

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Sees(nn.Module):
    """The layer before it, and the type of what it gave and whether autocast was on, in training and not."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def forward(self, x):
        self.seen.add((x.dtype, torch.is_autocast_enabled("cpu"), self.training))
        return x


def learner(**kwargs):
    torch.manual_seed(0)
    kwargs = {"opt_func": optim.SGD, **kwargs}
    return fake_learner(layers=[nn.Linear(5, 8), Sees(), nn.Linear(8, 4)], **kwargs)


class Grads(LearnerCallback):
    _order = 200

    def __init__(self, learn):
        super().__init__(learn)
        self.grads = []

    def on_backward_end(self, skip_step):
        if not skip_step:
            self.grads.append(torch.cat([p.grad.flatten() for p in self.learn.model.parameters()]))


@pytest.mark.parametrize("name", DTYPES)
def test_the_model_runs_in_16_bits_and_all_else_in_32(name):
    seen = set()

    def loss(output, target):
        seen.add((output.dtype, torch.is_autocast_enabled("cpu")))
        return nn.functional.cross_entropy(output, target)

    def metric(output, target):
        seen.add((output.dtype, torch.is_autocast_enabled("cpu")))
        return output.sum()

    learn = learner(loss_func=loss, metrics=[metric])
    getattr(learn, f"to_{name}")()
    learn.fit(1)
    assert learn.model[1].seen == {(DTYPES[name], True, True), (DTYPES[name], True, False)}
    assert seen == {(torch.float32, False)}
    assert {p.dtype for p in learn.model.parameters()} == {torch.float32}
    assert learn.get_preds()[0].dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", DTYPES)
def test_near_the_32_bit_run(name):
    plain, half = learner(train_length=40), learner(train_length=40)
    getattr(half, f"to_{name}")()
    for learn in (plain, half):
        learn.fit_one_cycle(4, 0.5, moms=None)
    assert half.recorder.losses[-1] == pytest.approx(plain.recorder.losses[-1], rel=0.02)
    assert half.recorder.losses[-1] != plain.recorder.losses[-1]


def test_to_fp32_undoes_it_and_the_last_word_counts():
    learn = learner().to_fp16().to_bf16()
    assert [cb.precision for cb in learn.callbacks] == ["bf16"]
    learn.to_fp32().fit(1)
    assert learn.callbacks == [] and {dtype for dtype, _, _ in learn.model[1].seen} == {torch.float32}


def test_the_recorded_loss_and_the_stepped_gradients_are_unscaled():
    plain, half = learner(), learner().to_fp16(init_scale=1024)
    want, got = Grads(plain), Grads(half)
    plain.fit(1, 1e-3, callbacks=[want])
    half.fit(1, 1e-3, callbacks=[got])
    torch.testing.assert_close(torch.tensor(half.recorder.raw_losses), torch.tensor(plain.recorder.raw_losses),
                               rtol=1e-2, atol=0)
    torch.testing.assert_close(got.grads[0], want.grads[0], rtol=2e-2, atol=2e-3)


def test_a_term_that_another_callback_adds_is_scaled_too():
    class Adds(LearnerCallback):
        def on_backward_begin(self, last_loss):
            return {"last_loss": last_loss + self.learn.model[0].bias.sum()}

    learn = learner(loss_func=lambda output, target: output.sum() * 0).to_fp16(init_scale=1024)
    grads = Grads(learn)
    learn.fit(1, callbacks=[Adds(learn), grads])
    assert torch.equal(grads.grads[0][40:48], torch.ones(8))    # the first layer's bias comes after its 5 x 8 weights


class Overflows(LearnerCallback):
    """Gradients of infinity in the given batches."""

    _order = -100

    def __init__(self, learn, *batches):
        super().__init__(learn)
        self.batches = batches

    def on_backward_end(self, iteration):
        if iteration in self.batches:
            self.learn.model[0].weight.grad[0, 0] = float("inf")


def test_steps_that_overflow_are_skipped_counted_and_told(capsys):
    learn = learner(train_length=20, silent=False).to_fp16(init_scale=1024)
    grads = Grads(learn)
    learn.fit(2, callbacks=[Overflows(learn, 1, 2, 6), grads])
    assert learn.mixed_precision.n_skipped == 3 and len(grads.grads) == 2 * 4 - 3
    assert all(g.isfinite().all() for g in grads.grads)
    out = capsys.readouterr().out
    assert "fp16: 2 steps of epoch 0 were skipped, their gradients overflowed; the loss scale is now 256" in out
    assert "fp16: 1 steps of epoch 1 were skipped, their gradients overflowed; the loss scale is now 128" in out


def test_a_skipped_step_is_no_update_and_changes_nothing():
    class Updates(LearnerCallback):
        def on_train_begin(self):
            self.seen = []

        def on_batch_end(self, train, update):
            if train:
                self.seen.append((update, self.learn.model[0].weight[1, 1].item()))

    learn = learner(train_length=15, opt_func=optim.Adam, wd=0.5).to_fp16()
    updates = Updates(learn)
    learn.fit(1, callbacks=[updates, Overflows(learn, 1)])
    (a, first), (b, second), (c, third) = updates.seen
    assert (a, b, c) == (1, 1, 2) and first == second != third


def test_the_scale_goes_on_from_run_to_run_and_into_a_checkpoint():
    learn = learner().to_fp16(init_scale=1024)
    learn.fit(1, callbacks=[Overflows(learn, 0)])
    precision = learn.mixed_precision
    assert precision.scale_state["scale"] == 512
    learn.lr_find(num_it=11)
    assert precision.scale_state["scale"] == 512 and precision.n_skipped == 1

    class Reads(Callback):
        _order = 1000

        def on_epoch_end(self):
            self.state = precision.state_dict()

    learn.fit(1, callbacks=[Overflows(learn, 1), reads := Reads()])
    other = learner().to_fp16()
    other.mixed_precision.load_state_dict(reads.state)

    class Loads(LearnerCallback):
        _order = 1000

        def on_train_begin(self):
            self.learn.mixed_precision.load_state_dict(reads.state)

        def on_epoch_end(self):
            self.scale = self.learn.mixed_precision.scaler.get_scale()

    other.fit(1, callbacks=[loads := Loads(other)])
    assert loads.scale == 256


def test_clipping_sees_unscaled_accumulated_gradients():
    plain, half = learner(train_length=20), learner(train_length=20).to_fp16(init_scale=4096)
    want, got = Grads(plain), Grads(half)
    for learn, grads in ((plain, want), (half, got)):
        learn.fit(1, callbacks=[GradientClipping(learn, 0.05), GradientAccumulation(learn, 3), grads])
    assert [float(g.norm()) for g in got.grads] == pytest.approx([0.05, 0.05], rel=1e-3)
    torch.testing.assert_close(got.grads[0], want.grads[0], rtol=2e-2, atol=1e-3)


def test_an_overflow_in_a_window_costs_that_window_only():
    learn = learner(train_length=20).to_fp16()
    grads = Grads(learn)
    learn.fit(1, callbacks=[GradientAccumulation(learn, 2), Overflows(learn, 0), grads])
    assert learn.mixed_precision.n_skipped == 1 and len(grads.grads) == 1


@pytest.mark.parametrize("event", ["on_batch_begin", "on_loss_begin", "on_backward_end", "on_epoch_end"])
def test_autocast_is_off_after_an_error(event):
    def fail():
        raise RuntimeError("enough")

    learn, bad = learner().to_bf16(), Callback()
    bad._order = 500
    setattr(bad, event, fail)
    with pytest.raises(RuntimeError, match="enough"):
        learn.fit(1, callbacks=[bad])
    assert not torch.is_autocast_enabled("cpu")
    learn.fit(1)


def test_autocast_is_off_after_an_error_in_the_model():
    learn = learner().to_bf16()
    learn.model[0] = nn.Linear(6, 8)
    with pytest.raises(RuntimeError):
        learn.fit(1)
    assert not torch.is_autocast_enabled("cpu")


def test_several_outputs_are_widened():
    class Two(nn.Linear):
        def forward(self, x):
            return super().forward(x), [super().forward(x)]

    def loss(output, target):
        assert output[0].dtype == output[1][0].dtype == torch.float32
        return nn.functional.cross_entropy(output[0], target)

    fake_learner(layers=[Two(5, 4)], loss_func=loss).to_bf16().fit(1)


def test_a_batch_that_leaves_no_gradient_is_no_overflow():
    class Skips(Callback):
        def on_backward_begin(self, iteration):
            return {"skip_bwd": iteration == 0}

    learn = learner().to_fp16()
    learn.fit(1, callbacks=[Skips()])
    assert learn.mixed_precision.n_skipped == 0


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="precision must be 'fp16' or 'bf16', not 'fp8'"):
        MixedPrecision(learner(), "fp8")
    with pytest.raises(ValueError, match="init_scale must be a finite number above 0, not 0"):
        learner().to_fp16(0)
