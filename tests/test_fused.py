"""Steps of torch's own optimizers by their kernels: equal to torch's fused steps to the bit, and safe."""
import copy
import warnings
from functools import partial
from itertools import product

import pytest
import torch
from torch import nn, optim

from minifast.fused import AdamW, KernelStep
from minifast.optimizer import OptimWrapper

SGD = [dict(momentum=m, dampening=d, nesterov=n, weight_decay=w, maximize=x)
       for m, d, n, w, x in product((0.0, 0.9), (0.0, 0.3), (False, True), (0.0, 0.01), (False, True))
       if not (n and (d or not m))]
ADAM = [dict(weight_decay=w, maximize=x, amsgrad=a) for w, x, a in product((0.0, 0.01), (False, True), (False, True))]
CASES = [*((optim.SGD, o) for o in SGD), *((kind, o) for kind in (optim.Adam, optim.AdamW) for o in ADAM)]


def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 9, 5)).to(
        memory_format=torch.channels_last)
    model[1].bias.requires_grad_(False)
    return model


def gradients(model, step, missing):
    g = torch.Generator().manual_seed(step)
    for i, p in enumerate(model.parameters()):
        p.grad = None
        grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=g))
        if p.requires_grad and not (missing and step % 3 == 2 and i % 2):
            p.grad = grad


def equal_states(one, two):
    return all(torch.equal(a[k], b[k]) for a, b in zip(one.state.values(), two.state.values(), strict=True) for k in a
               if torch.is_tensor(a[k])) and len(one.state) == len(two.state)


@pytest.mark.parametrize("kind, options", CASES, ids=str)
def test_two_hundred_steps_are_torchs_fused_ones_to_the_bit(kind, options):
    ours, theirs = net(), net()
    opt = OptimWrapper(kind(ours.parameters(), lr=0.01, **options))
    twin = kind(theirs.parameters(), lr=0.01, fused=True, **options)
    for step in range(200):
        gradients(ours, step, missing=True)
        gradients(theirs, step, missing=True)
        opt.step()
        twin.step()
    assert opt.kernel.usable
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert equal_states(opt.opt, twin)


def test_a_first_gradient_that_comes_late_begins_its_own_momentum():
    p, q = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    opt = OptimWrapper(optim.SGD([p, q], lr=0.1, momentum=0.9, dampening=0.5))
    twin = copy.deepcopy(opt.opt)
    others = twin.param_groups[0]["params"]
    for late in (False, True, True):
        for mine, theirs in zip((p, q), others, strict=True):
            for t in (mine, theirs):
                t.grad = torch.full((3,), 2.0) if late or mine is p else None
        opt.step()
        twin.step()
    assert torch.allclose(p, others[0]) and torch.allclose(q, others[1]) and not torch.equal(p, q)


@pytest.mark.parametrize("options", [{"fused": False}, {"foreach": True}, {"foreach": False},
                                     {"differentiable": True}])
def test_a_way_that_the_user_has_chosen_is_respected(options):
    assert not KernelStep(optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, **options)).usable


@pytest.mark.parametrize("p", [torch.zeros(3, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.complex64),
                               torch.zeros(4, 4)[:, :2]], ids=["bfloat16", "complex", "gaps"])
def test_parameters_that_the_kernel_is_not_for_go_torchs_way(p):
    p = nn.Parameter(p)
    p.grad = torch.ones_like(p)
    opt = OptimWrapper(optim.SGD([p], lr=0.5, momentum=0.9))
    assert not opt.kernel.usable
    opt.step()
    assert torch.equal(p, torch.full_like(p, -0.5))


def test_a_class_made_from_torchs_and_a_step_in_its_place_are_left_alone():
    class Doubled(optim.SGD):
        def step(self, closure=None):
            super().step()
            super().step()

    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.ones(2)
    OptimWrapper(Doubled([p], lr=1.0)).step()
    assert p.tolist() == [-2, -2]
    opt, calls = optim.SGD([p], lr=1.0), []
    opt.step = lambda closure=None: calls.append(1)
    OptimWrapper(opt).step()
    assert calls == [1] and p.tolist() == [-2, -2]


@pytest.mark.parametrize("make", [partial(optim.SGD, momentum=0.9), optim.Adam, optim.AdamW, AdamW,
                                  partial(optim.Adagrad, fused=True)])
@pytest.mark.parametrize("change", ["larger", "smaller", "double", "moment", "in place", "not a tensor"])
def test_no_change_of_a_parameter_or_its_state_harms_the_memory(make, change):
    p = nn.Parameter(torch.ones(4))
    opt = OptimWrapper(make([p], lr=0.1))
    p.grad = torch.ones(4)
    opt.step()
    state = opt.opt.state[p]
    name = next(k for k in state if k != "step")
    if change in ("larger", "smaller"):
        p.data = torch.ones(100_000 if change == "larger" else 1)
    elif change == "double":
        p.data = p.data.double()
    elif change == "moment":
        state[name] = torch.zeros(1)
    elif change == "in place":
        state[name].resize_(1)
    else:
        state[name] = "x"
    p.grad = torch.ones_like(p)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            opt.step()
        except (RuntimeError, TypeError, AttributeError) as e:     # torch's own, of its own way
            assert "Adagrad" in opt.name, e
    if "Adagrad" not in opt.name:
        assert bool(caught) is (change != "double")
        assert p.dtype is (torch.float64 if change == "double" else torch.float32)
        assert opt.opt.state[p][name].shape == p.shape and opt.opt.state[p][name].dtype is p.dtype
        assert bool((p < 1).all())


def test_a_gradient_of_another_shape_is_named():
    p = nn.Parameter(torch.ones(4))
    opt = OptimWrapper(optim.SGD([p], lr=0.1))
    p.grad = torch.ones(4)
    p.data = torch.ones(5)
    with pytest.raises(RuntimeError, match=r"gradient of a parameter is float32 \(4,\).*changed after the backward"):
        opt.step()
    assert p.tolist() == [1] * 5


def test_a_learning_rate_in_a_tensor_stays_in_it():
    lr = torch.tensor(0.1)
    opt = OptimWrapper(optim.SGD([nn.Parameter(torch.ones(2))], lr=lr))
    opt.lr = 0.5
    assert opt.opt.param_groups[0]["lr"] is lr and float(lr) == 0.5 and not opt.kernel.usable


def test_hooks_around_the_kernel():
    p, seen = nn.Parameter(torch.zeros(2)), []
    opt = optim.SGD([p], lr=1.0)
    opt.register_step_pre_hook(lambda opt, args, kwargs: seen.append(p.tolist()))
    opt.register_step_post_hook(lambda opt, args, kwargs: seen.append(p.tolist()))
    p.grad = torch.ones(2)
    OptimWrapper(opt).step()
    assert seen == [[0, 0], [-1, -1]]


def test_a_dimension_of_one_element_may_have_any_stride(monkeypatch):
    """The gradient of a convolution over one channel has another stride there than its weight, channels last or not."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(72, 2)).to(memory_format=torch.channels_last)
    theirs = copy.deepcopy(ours)
    opt = OptimWrapper(optim.Adam(ours.parameters(), lr=0.01, fused=True))
    torchs = optim.Adam(theirs.parameters(), lr=0.01, fused=True)
    fitted, real = [], opt.kernel._fitted
    monkeypatch.setattr(opt.kernel, "_fitted", lambda *args: fitted.append(1) or real(*args))
    for _ in range(5):
        x = torch.randn(4, 1, 5, 5)
        for net, step in ((ours, opt.step), (theirs, torchs.step)):
            net.zero_grad()
            net(x).square().mean().backward()
            w = net[0].weight
            w.grad = torch.empty_strided(w.shape, (9, 9, 3, 1)).copy_(w.grad)   # as a GPU's convolutions give it
            step()
    assert ours[0].weight.stride() == (9, 1, 3, 1) and len(fitted) == 1     # the first time, to make the state
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
