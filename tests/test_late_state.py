"""Modules that make or replace what they hold in the middle of a run, and settings that stand under other names."""
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torture.kept_state import resumed, searched
from torture.state_of_kinds import Items, learner

from minifast import run_state
from minifast.callback import Callback
from minifast.callbacks import Checkpoint
from minifast.data import DataBunch
from minifast.fakes import fake_learner


class LateBuffer(nn.Module):
    """Makes its buffer in the first batch."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", None)

    def forward(self, x):
        now = x.detach().mean(0)
        self.mean = now if self.mean is None else 0.9 * self.mean + 0.1 * now
        return x - self.mean


class Memory(nn.Module):
    """A buffer that grows, and one that files leave out."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.zeros(0, 4))
        self.register_buffer("last", torch.zeros(4), persistent=False)

    def forward(self, x):
        if self.training:
            self.rows = torch.cat([self.rows, x.detach()])
        self.last = x.detach().mean(0)
        return x + 0.1 * (self.rows.mean(0) if len(self.rows) else 0) + self.last


class LateAttribute(nn.Module):
    def forward(self, x):
        self.n = getattr(self, "n", 0) + 1
        return x * (1 + self.n / 50)


LAYERS = {"late buffer": LateBuffer, "growing buffer": Memory, "late attribute": LateAttribute,
          "spectral norm, old": lambda: nn.utils.spectral_norm(nn.Linear(4, 4)),    # its weight is a view at first
          "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(4, 4)),
          "weight norm": lambda: parametrizations.weight_norm(nn.Linear(4, 4))}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_make_their_state_go_on(name):
    def make(folder):
        torch.manual_seed(1)
        return learner(folder, layer=LAYERS[name]())
    assert resumed(make, 7) == ""
    assert searched(make) == ""


class LateItems(Items):
    """A data set that begins to count with its first item."""

    def __getitem__(self, i):
        self.n = getattr(self, "n", 0) + 1
        x, y = super().__getitem__(i)
        return x * (1 + self.n / 500), y


def test_a_data_set_that_makes_its_state_goes_on():
    def make(folder):
        return learner(folder, DataBunch.create(LateItems(), LateItems(n=8), bs=4, seed=3,
                                                loss_func=nn.CrossEntropyLoss()))
    assert resumed(make, 7) == ""
    assert searched(make) == ""


class Activation(nn.Module):
    """Keeps its argument under another name."""

    def __init__(self, function, scale=1.0):
        super().__init__()
        self.f, self.s = function, scale

    def forward(self, x):
        return self.f(x) * self.s


def begun(folder, **kwargs):
    run_state.PROCESS = "another program"
    learn = learner(folder, **kwargs)
    learn.fit(1, 0.01, callbacks=[Checkpoint(learn, "run")])
    run_state.PROCESS = "this program"


@pytest.mark.parametrize(("then", "now", "says"), [((F.relu,), (F.gelu,), "attribute f"),
                                                   ((F.relu, 1.0), (F.relu, 2.0), "attribute s")])
def test_another_attribute_of_a_module_is_said(tmp_path, then, now, says):
    begun(tmp_path, layer=Activation(*then))
    learn = learner(tmp_path, layer=Activation(*now))
    with pytest.warns(UserWarning, match=f"was begun with others here.*{says}"):
        learn.fit(2, 0.01, callbacks=[Checkpoint(learn, "run", extend=True)])


def test_a_function_with_other_code_is_another_loss(tmp_path):
    begun(tmp_path, loss=lambda output, target: F.cross_entropy(output, target))
    learn = learner(tmp_path, loss=lambda output, target: 2 * F.cross_entropy(output, target))
    with pytest.raises(ValueError, match=r"loss function: .*\(code .*\) then, .*\(code .*\) now"):
        learn.fit(2, 0.01, callbacks=[Checkpoint(learn, "run", extend=True)])
    same = learner(tmp_path, loss=lambda output, target: F.cross_entropy(output, target))
    same.fit(2, 0.01, callbacks=[Checkpoint(same, "run", extend=True)])
    assert len(same.recorder.train_losses) == 2


class Counts(Callback):
    """Changes an attribute that has the name of an argument."""

    def __init__(self, n=0, stops=None):
        self.n, self.when = n, stops

    def state_dict(self):
        return {"n": self.n}

    def on_batch_end(self, train):
        self.n += train
        if self.n == self.when:
            self.when = None
            raise ZeroDivisionError


def test_a_run_goes_on_in_its_process_though_it_has_changed_an_argument(tmp_path):
    def fit(learn):
        learn.fit(2, 0.01, callbacks=[Checkpoint(learn, "run", every=1)])
    counts = Counts(stops=4)
    learn = learner(tmp_path, callbacks=[counts])
    with pytest.raises(ZeroDivisionError):
        fit(learn)
    counts.when = -1
    fit(learn)
    assert counts.n == 10 and len(learn.recorder.raw_losses) == 10
    with pytest.warns(UserWarning, match="is a finished run"):
        fit(learner(tmp_path, callbacks=[Counts()]))
    for _ in range(2):      # the first refusal changes nothing
        with pytest.raises(ValueError, match="Counts: n 0 then, 3 now"):
            fit(learner(tmp_path, callbacks=[Counts(3)]))


@pytest.mark.parametrize("value", [torch.zeros(3), torch.zeros((), device="meta")])
def test_a_spoilt_count_of_steps_begins_again(value):
    learn = fake_learner()
    learn.fit(1)
    weight = learn.model[0].weight
    learn.opt.opt.state[weight]["step"] = value
    with pytest.warns(UserWarning, match="step in the optimizer's state is .* begins again"):
        learn.fit(1)
    assert learn.opt.opt.state[weight]["step"] == 2


def test_a_spoilt_moment_without_numbers_begins_again():
    learn = fake_learner()
    learn.fit(1)
    learn.opt.opt.state[learn.model[0].weight]["exp_avg"] = torch.zeros(4, 5, device="meta")
    with pytest.warns(UserWarning, match="exp_avg in the optimizer's state is .* on meta.* begins again"):
        learn.fit(1)
