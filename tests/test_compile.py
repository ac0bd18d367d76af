"""`learn.compile`: the same training through torch.compile, and back. The back end here compiles nothing: it counts."""
from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from minifast.callback import Callback
from minifast.callbacks import ActivationStats, GradientAccumulation
from minifast.fakes import fake_learner


class BackEnd:
    """A back end that runs what it is given, and counts the runs."""

    def __init__(self):
        self.runs = 0

    def __call__(self, graph, inputs):
        def run(*args):
            self.runs += 1
            return graph.forward(*args)
        return run


def test_a_compiled_model_trains_to_the_same_weights_and_back():
    ours, twin = fake_learner(), fake_learner()
    twin.model.load_state_dict(ours.model.state_dict())
    twin.data = copy.deepcopy(ours.data)
    back_end = BackEnd()
    names = list(ours.model.state_dict())
    assert ours.compile(backend=back_end) is ours
    ours.fit(1, 0.01)
    twin.fit(1, 0.01)
    assert back_end.runs == len(ours.data.train_dl) + len(ours.data.valid_dl)
    assert list(ours.model.state_dict()) == names
    assert all(torch.equal(a, b) for a, b in zip(ours.model.parameters(), twin.model.parameters(), strict=True))
    ours.lr_find(num_it=5)
    runs = back_end.runs
    assert runs > len(ours.data.train_dl) + len(ours.data.valid_dl)
    ours.compile(False).fit(1, 0.01)
    twin.fit(1, 0.01)
    assert back_end.runs == runs
    assert all(torch.equal(a, b) for a, b in zip(ours.model.parameters(), twin.model.parameters(), strict=True))


def test_any_number_of_models_is_compiled():
    """Also containers of torch's own, and as many as there are: torch by itself keeps to eight."""
    for n in range(1, 13):
        learn, back_end = fake_learner(), BackEnd()
        learn.model = nn.Sequential(nn.Linear(10, n), nn.ReLU(), nn.Linear(n, 2))
        learn.compile(backend=back_end)
        learn.model(torch.ones(4, 10))
        learn.model(torch.ones(5, 10))
        assert back_end.runs == 2, n


def test_accumulated_gradients_lie_where_no_graph_writes():
    """A CUDA graph writes its gradients to the same memory in each batch: see tests/test_gpu.py for one that does."""
    ours, twin = (fake_learner(train_length=20, batch_size=5, layers=[nn.Linear(5, 4)]) for _ in range(2))
    twin.model.load_state_dict(ours.model.state_dict())
    twin.data = copy.deepcopy(ours.data)
    ours.compile(backend="eager")
    seen = []

    class Watch(Callback):
        _order = 1000

        def on_backward_end(self, skip_zero):
            seen.append((skip_zero, ours.model[0].weight.grad.data_ptr()))

    given = []
    ours.model[0].weight.register_post_accumulate_grad_hook(lambda p: given.append(p.grad.data_ptr()))
    ours.fit(1, 0.01, callbacks=[GradientAccumulation(ours, 2), Watch()])
    twin.fit(1, 0.01, callbacks=[GradientAccumulation(twin, 2)])
    assert [skip for skip, _ in seen] == [True, False, True, False]
    assert seen[0][1] != given[0] and seen[1][1] == given[1] == seen[0][1]
    assert all(torch.equal(a, b) for a, b in zip(ours.model.parameters(), twin.model.parameters(), strict=True))


def test_files_go_between_a_compiled_and_a_plain_learner(tmp_path):
    compiled, plain = (fake_learner(path=tmp_path) for _ in range(2))
    compiled.compile(backend=BackEnd()).fit(1, 0.01)
    compiled.save("compiled")
    plain.load("compiled").fit(1, 0.01)
    plain.save("plain")
    compiled.load("plain")
    assert all(torch.equal(a, b) for a, b in zip(compiled.model.parameters(), plain.model.parameters(), strict=True))


def test_hooks_that_would_not_be_called_are_refused_and_the_summary_does_without():
    learn = fake_learner()
    learn.fit(1)
    told = str(learn.summary())
    learn.compile(backend=BackEnd())
    with pytest.raises(RuntimeError, match=r"ActivationStats: learn\.compile\(False\)"):
        learn.fit(1, callbacks=ActivationStats(learn))
    assert str(learn.summary()) == told
    assert learn.model._compiled_call_impl is not None
    learn.compile(False).fit(1, callbacks=ActivationStats(learn))


def test_where_a_loss_became_nan_is_found_in_a_compiled_model():
    learn = fake_learner(layers=[nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)])
    with torch.no_grad():
        learn.model[2].bias[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"the output of layer 2 \(Linear\) was the first to be NaN"):
        learn.compile(backend=BackEnd()).fit(1)
