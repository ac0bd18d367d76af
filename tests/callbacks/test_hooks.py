"""Hooks come off whatever happens; what they measure is what a forward pass by hand gives."""
from collections import Counter

import pytest
import torch
from torch import nn

from minifast.callback import Callback, LearnerCallback
from minifast.callbacks import ActivationStats, HookCallback, Hooks, dummy_eval, hook_output, hook_outputs, model_sizes
from minifast.fakes import fake_learner
from minifast.layers import simple_cnn
from minifast.state import LOOP

WIDTH = LOOP.index("a callback may return")


def n_hooks(model):
    return sum(len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules())


def test_hook_output_stores_the_last_output_without_its_graph_and_goes():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with hook_output(model[0]) as hook:
        y = model(torch.ones(1, 3))
        assert torch.equal(hook.stored.relu(), y) and not hook.stored.requires_grad
    model(torch.zeros(1, 3))
    assert torch.equal(hook.stored.relu(), y) and n_hooks(model) == 0
    with hook_output(model[0], detach=False) as hook:
        model(torch.ones(1, 3))
        assert hook.stored.requires_grad


def test_gradients_of_an_output():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with hook_output(model[1], grad=True) as hook:
        model(torch.ones(4, 3)).sum().backward()
    assert torch.equal(hook.stored[0], torch.ones(4, 2)) and n_hooks(model) == 0


def test_hooks_are_a_list_and_none_stays_where_one_fails():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with pytest.raises(ZeroDivisionError), hook_outputs(model) as hooks:
        model(torch.ones(1, 3))
        assert len(hooks) == 2 and [tuple(h.stored.shape) for h in hooks] == [(1, 2)] * 2
        assert torch.equal(hooks[1].stored, hooks.stored[1])
        raise ZeroDivisionError
    assert n_hooks(model) == 0
    with pytest.raises(AttributeError):
        Hooks([model[0], "no module"], lambda *_: None)
    assert n_hooks(model) == 0


def test_hook_callback_calls_its_hook_in_every_forward_pass_of_a_run_alone():
    class Count(HookCallback):
        n = 0

        def hook(self, module, inputs, output):
            self.n += 1

    learn = fake_learner(layer_group_count=2)
    learn.fit(2, callbacks=Count(learn))
    assert learn.count.n == 2 * (2 + 1) * 2 and n_hooks(learn.model) == 0
    learn.validate()
    assert learn.count.n == 12


def test_activation_stats_are_those_of_the_training_batches():
    learn = fake_learner(layers=[nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4)])
    expected = []

    class ByHand(Callback):
        def on_batch_begin(self, train, last_input):
            if train:
                h = learn.model[0](last_input)
                out = learn.model[2](h.relu())
                expected.append([[x.mean().item(), x.std(correction=0).item()] for x in (h, out)])

    learn.fit(3, 0.1, callbacks=[ByHand(), ActivationStats(learn)])
    stats = learn.activation_stats.stats
    assert stats.shape == (2, 2, 6)
    # the calls by hand ran through the hooks too, and left nothing: recording begins with the batch's own pass
    assert torch.allclose(stats, torch.tensor(expected).permute(2, 1, 0), atol=1e-6)


def test_activation_stats_keep_what_was_measured_before_an_error_and_nan_where_nothing_ran():
    class Fails(Callback):
        def on_batch_end(self, iteration):
            if iteration == 2:
                raise ZeroDivisionError

    learn = fake_learner()
    unused = nn.Linear(2, 2)
    with pytest.raises(ZeroDivisionError):
        learn.fit(3, callbacks=[ActivationStats(learn, [learn.model[0], unused]), Fails()])
    stats = learn.activation_stats.stats
    assert stats.shape == (2, 2, 2) and stats[:, 0].isfinite().all() and stats[:, 1].isnan().all()


def test_plot_stats_draws_a_line_for_each_module():
    learn = fake_learner(layer_group_count=2)
    learn.fit(1, callbacks=ActivationStats(learn))
    axes = learn.activation_stats.plot_stats(return_fig=True).axes
    assert [len(axis.lines) for axis in axes] == [2, 2]
    assert axes[0].lines[1].get_ydata().tolist() == learn.activation_stats.stats[0, 1].tolist()


def test_sizes_of_a_cnn_by_a_dummy_batch():
    model = simple_cnn((3, 16, 2), bn=True)
    assert model_sizes(model, (28, 28)) == [(1, 16, 14, 14), (1, 2, 7, 7), (1, 2)]
    assert model.training and n_hooks(model) == 0 and int(model[0][2].num_batches_tracked) == 0
    assert dummy_eval(model, (8, 8)).shape == (1, 2)
    with pytest.raises(ValueError, match="how many channels"):
        dummy_eval(nn.ReLU())


def test_summary_shows_layers_shapes_and_parameters_and_changes_nothing():
    learn = fake_learner(layer_group_count=2, batch_size=5)
    learn.freeze()
    state, position = torch.get_rng_state(), learn.data.train_dl.state_dict()
    lines = str(learn.summary()).splitlines()
    assert lines[0].split() == ["Layer", "Output", "shape", "Parameters", "Trainable"]
    assert lines[1].split() == ["0", "(Linear)", "5", "x", "5", "30", "no"]
    assert lines[2].split() == ["1", "(Linear)", "5", "x", "4", "24", "yes"]
    assert lines[4].startswith("54 parameters, 24 of them trainable")
    assert "CrossEntropyLoss" in lines[5] and "Adam" in lines[5]
    assert torch.equal(torch.get_rng_state(), state) and learn.data.train_dl.state_dict() == position
    assert n_hooks(learn.model) == 0 and learn.model.training and not learn.has_opt
    assert repr(learn.summary()) == str(learn.summary())


def test_summary_of_a_model_with_own_parameters_several_outputs_and_a_layer_that_does_not_run():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.used, self.unused = nn.Parameter(torch.ones(1)), nn.Linear(5, 4), nn.Linear(7, 7)

        def forward(self, x):
            return self.scale * self.used(x), x

    learn = fake_learner()
    learn.model = Odd()
    text = str(learn.summary())
    assert "model (Odd)      5 x 4, 5 x 5  1" in text and "unused (Linear)  not run" in text


def test_show_callbacks_draws_the_loop_with_the_callbacks_at_their_events():
    learn = fake_learner(metrics=[lambda o, t: (o.argmax(1) == t).float().mean()])
    learn.fit(1, callbacks=(own := ActivationStats(learn)))
    lines = str(learn.show_callbacks(ActivationStats(learn))).splitlines()
    drawn = [line[:WIDTH].rstrip() for line in LOOP.splitlines() if line[:WIDTH].strip()]
    assert [line[:WIDTH].rstrip() for line in lines[:-1] if line[:WIDTH].strip()] == drawn    # indented as the drawing
    at = {line.split()[0]: line[WIDTH:] for line in lines if line.lstrip().startswith("on_")}
    assert at["on_step_end"] == "Recorder" and at["on_backward_begin"] == ""
    assert at["on_batch_end"] == "Recorder, ActivationStats, FiniteGuard, Interruption"
    assert max(map(len, lines)) <= 120
    assert lines[-1] == "metrics, called first in a validation: <lambda>"
    assert learn.activation_stats is not own    # made by hand it replaces the other; made to be listed it does not
    learn.callback_fns = [ActivationStats]
    learn.activation_stats = own
    learn.show_callbacks()
    assert learn.activation_stats is own


CALLS = Counter()       # not in an attribute, which the guard would put back


class Watching(HookCallback):
    role = "watching"

    def hook(self, module, inputs, output):
        CALLS[type(self).__name__] += 1


class Shaping(Watching):
    role = "training"


class OwnHooks(LearnerCallback):
    """Registers functions of its own."""

    role = "watching"

    def on_train_begin(self):
        def count(module, inputs):
            self.backward()
        layer = self.learn.model[1]
        self.handles = [layer.register_forward_pre_hook(count), layer.register_full_backward_hook(self.backward)]

    def backward(self, *args):
        CALLS["OwnHooks"] += 1

    def on_train_end(self):
        for handle in self.handles:
            handle.remove()


class Poison(Callback):
    def on_batch_begin(self, iteration, last_input, train):
        return {"last_input": last_input * float("nan")} if iteration == 2 and train else None


def test_the_guards_repetition_calls_no_hooks_of_those_who_watch():
    learn = fake_learner(train_length=40, layers=[nn.Linear(5, 4), nn.Linear(4, 4)])
    CALLS.clear()
    with pytest.raises(FloatingPointError, match="batch 2.*the input"):
        learn.fit(1, callbacks=[Watching(learn), Shaping(learn), OwnHooks(learn), Poison()])
    assert CALLS["Watching"] == CALLS["OwnHooks"] == 16 and CALLS["Shaping"] == 16 + 2 * 3
    assert n_hooks(learn.model) == 0
