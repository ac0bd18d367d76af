"""The fakes are small, silent, reproducible, and learn."""
import torch
from torch import nn

from minifast.fakes import fake_data, fake_learner
from minifast.metrics import accuracy


def test_fake_data_has_the_shapes_asked_for():
    data = fake_data(n_in=3, n_out=2, batch_size=4, train_length=12, valid_length=5)
    assert [(x.shape, y.shape) for x, y in data.train_dl] == [((4, 3), (4,))] * 3
    assert [tuple(x.shape) for x, _ in data.valid_dl] == [(4, 3), (1, 3)]
    assert all(int(y.max()) < 2 for _, y in data.train_dl)


def test_fake_data_without_validation():
    assert fake_data(valid_length=0).empty_val


def test_the_target_is_what_the_docstring_says():
    x, y = next(iter(fake_data(n_in=5, n_out=3, batch_size=10, train_length=10).train_dl))
    assert torch.equal(x[:, :3].argmax(1), y)


def test_same_seed_same_fakes_whatever_the_global_generator():
    one = fake_learner(seed=3)
    torch.manual_seed(99)
    two, other = fake_learner(seed=3), fake_learner(seed=4)
    assert torch.equal(one.model[0].weight, two.model[0].weight)
    assert not torch.equal(one.model[0].weight, other.model[0].weight)
    assert torch.equal(one.data.one_batch()[0], two.data.one_batch()[0])


def test_making_fakes_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    fake_learner(layer_group_count=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fake_learner_is_silent_and_learns(capsys):
    learn = fake_learner(train_length=200, valid_length=100, batch_size=20, metrics=accuracy)
    before = learn.validate()
    learn.fit_one_cycle(5, 0.1)
    after = learn.validate()
    assert after[0] < before[0] / 2 and after[1] > 0.9
    assert capsys.readouterr().out == ""


def test_layer_groups_and_own_layers():
    groups = fake_learner(layer_group_count=3).layer_groups
    assert [sum(p.numel() for p in g.parameters()) for g in groups] == [30, 30, 24]
    layers = [nn.Linear(5, 2), nn.ReLU(), nn.Linear(2, 4)]
    assert list(fake_learner(layers=layers).model) == layers
