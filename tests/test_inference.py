import copy
import pickle
import weakref
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from minifast.data import DataBunch, DatasetType
from minifast.fakes import fake_data, fake_learner
from minifast.inference import Category, MultiCategory
from minifast.interpret import ClassificationInterpretation
from minifast.learner import Learner
from minifast.losses import BCEWithLogitsFlat, CrossEntropyFlat, MSELossFlat

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))


class Fixed(nn.Linear):
    def __init__(self, weight):
        super().__init__(len(weight[0]), len(weight), bias=False)
        self.weight.data = torch.tensor(weight).float()


def learner(loss_func, model, y=None, x=X, bs=8, **kwargs):
    y = torch.zeros(len(x), dtype=torch.long) if y is None else y
    ds = TensorDataset(x, y)
    return Learner(DataBunch.create(ds, ds, bs=bs, device="cpu", seed=0, loss_func=loss_func, **kwargs), model,
                   silent=True)


ONE = Fixed([[9., 0, 0, 0]])
HIGH, LOW = torch.tensor([5., 0, 0, 0]), torch.tensor([-5., 0, 0, 0])


@pytest.mark.parametrize("loss", [BCEWithLogitsFlat(), nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits])
def test_one_output_with_bce_is_two_classes(loss):
    learn = learner(loss, ONE, classes=["neg", "pos"])
    for x, name, k in ((HIGH, "pos", 1), (LOW, "neg", 0)):
        value, index, probability = learn.predict(x)
        assert value == name and value.obj == name and int(value.data) == int(index) == k and index.ndim == 0
        assert torch.allclose(probability, torch.tensor([float(k)]))
    assert learner(loss, ONE).predict(HIGH)[0] == 1
    near = torch.tensor([0.1, 0, 0, 0])     # a probability of 0.71
    assert learn.predict(near)[0] == "pos" and learn.predict(near, thresh=0.8)[0] == "neg"
    with pytest.raises(ValueError, match="outputs are for 2 classes, and the data has 3"):
        learner(loss, ONE, classes=["a", "b", "c"]).predict(HIGH)


def test_a_probability_from_the_model_itself():
    learn = learner(nn.BCELoss(), nn.Sequential(ONE, nn.Sigmoid()), classes=["neg", "pos"])
    assert learn.predict(HIGH)[0] == "pos" and learn.predict(LOW)[0] == "neg"


def test_several_labels_are_all_those_above_the_threshold():
    x = torch.tensor([1., -1, 0.2, -1])
    learn = learner(BCEWithLogitsFlat(), Fixed(torch.eye(4).tolist()), torch.zeros(16, 4), classes=list("abcd"))
    value, index, probabilities = learn.predict(x)
    assert value == ["a", "c"] and value.obj == ["a", "c"] and index.tolist() == [1, 0, 1, 0]
    assert torch.allclose(probabilities, x.sigmoid()) and learn.predict(x, thresh=0.7)[0] == ["a"]
    learn.data.classes = None
    assert learn.predict(x)[0] == [0, 2] and learn.predict(-x)[0] == [1, 3]
    learn.data.classes = list("abc")
    with pytest.raises(ValueError, match="outputs are for 4 classes, and the data has 3"):
        learn.predict(x)
    one = learner(BCEWithLogitsFlat(), ONE, classes=["only"])
    assert one.predict(HIGH)[0] == ["only"] and one.predict(LOW)[0] == []


@pytest.mark.parametrize("loss", [CrossEntropyFlat(), nn.CrossEntropyLoss(), nn.NLLLoss(), F.cross_entropy])
def test_a_class_has_a_name_or_a_number(loss):
    model = Fixed([[0., 0, 0, 0], [1., 0, 0, 0]])
    model = nn.Sequential(model, nn.LogSoftmax(1)) if isinstance(loss, nn.NLLLoss) else model
    value, index, probabilities = learner(loss, model, classes=["n", "p"]).predict(HIGH)
    assert value == "p" and isinstance(value, Category) and int(index) == 1
    assert torch.allclose(probabilities, torch.tensor([0., 5]).softmax(0))
    assert learner(loss, model).predict(HIGH)[0] == 1 and learner(loss, model, classes=[7, 8]).predict(HIGH)[0] == 8
    with pytest.raises(ValueError, match="outputs are for 2 classes, and the data has 3"):
        learner(loss, model, classes=["a", "b", "c"]).predict(HIGH)


def test_a_category_can_be_copied_and_pickled():
    cat = Category("cat", torch.tensor(1))
    for other in (copy.deepcopy(cat), pickle.loads(pickle.dumps(cat))):
        assert other == "cat" and other.obj == "cat" and int(other.data) == 1 and isinstance(other, Category)
    several = copy.deepcopy(MultiCategory(["a"], torch.ones(1)))
    assert several == ["a"] and several.data.tolist() == [1]


class Reshaped(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.shape, self.scale = shape, nn.Parameter(torch.ones(()))

    def forward(self, x): return self.scale * x.reshape(len(x), *self.shape)


@pytest.mark.parametrize("loss, shape, want", [
    (nn.CrossEntropyLoss(), (2, 2, 1), [[1], [0]]), (CrossEntropyFlat(axis=1), (2, 2), [1, 0]),
    (CrossEntropyFlat(), (2, 2), [1, 1]), (BCEWithLogitsFlat(), (1, 2, 2), [[[0, 0], [1, 1]]]),
])
def test_positions_give_a_map(loss, shape, want):
    x = torch.tensor([[-1., -2, 3, 4]] * 16)
    x = torch.tensor([[0., 5, 3, 4]] * 16) if shape[0] == 2 else x
    learn = learner(loss, Reshaped(*shape), x=x, y=torch.zeros(16))
    value, index, probabilities = learn.predict(x[0])
    assert value.tolist() == index.tolist() == want and probabilities.shape == shape


@pytest.mark.parametrize("loss", [MSELossFlat(), nn.L1Loss(), F.mse_loss, nn.HuberLoss()])
def test_a_quantity_is_a_number(loss):
    value, index, output = learner(loss, ONE, classes=None).predict(HIGH)
    assert value == 45.0 and isinstance(value, float) and index.tolist() == output.tolist() == [45.0]
    several = learner(loss, Fixed(torch.eye(4).tolist())).predict(HIGH)
    assert all(torch.equal(part, HIGH) for part in several)


class Heads(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make, self.lin = make, nn.Linear(4, 2)

    def forward(self, x): return self.make(self.lin(x), x)


Out = namedtuple("Out", "logits aux")


@pytest.mark.parametrize("make, get", [
    (lambda a, b: {"a": a, "b": b}, lambda o: o["a"]), (Out, lambda o: o.logits), (lambda a, b: (a, b), lambda o: o[0]),
    (lambda a, b: [a, {"b": b}], lambda o: o[0])])
def test_outputs_of_any_form(make, get):
    learn = learner(lambda o, y: F.cross_entropy(get(o), y), Heads(make))
    learn.fit(1)
    preds, targets = learn.get_preds()
    value, index, output = learn.predict(X[3])
    assert type(preds) is type(value) is type(make(1, 2)) and torch.allclose(get(preds), learn.model.lin(X), atol=1e-6)
    assert torch.allclose(get(value), get(preds)[3], atol=1e-6) and value is index and get(output).shape == (2,)
    with pytest.raises(ValueError, match="classes are read off outputs that are one tensor"):
        learn.data.loss_func = None
        learn.loss_func = CrossEntropyFlat()
        ClassificationInterpretation(learn, preds, targets, torch.zeros(16)).confusion_matrix()


@pytest.mark.parametrize("loss", [CrossEntropyFlat(), MSELossFlat(), BCEWithLogitsFlat()])
def test_a_loss_that_gets_a_named_tuple_says_so(loss):
    with pytest.raises(TypeError, match=r"takes one tensor, and the model returned a Out \(.*give loss_func="):
        learner(loss, Heads(Out)).fit(1)


def test_outputs_that_differ_in_size_come_as_a_list():
    batches = [(torch.randn(4, n, 4), torch.ones(4, n).long()) for n in (3, 5)]
    learn = Learner(DataBunch(batches, batches, device="cpu", loss_func=CrossEntropyFlat()), nn.Linear(4, 2),
                    silent=True)
    preds, targets, losses = learn.get_preds(with_loss=True)
    assert [tuple(p.shape) for p in preds] == [(3, 2)] * 4 + [(5, 2)] * 4 and losses.shape == (8,)
    assert [len(t) for t in targets] == [3] * 4 + [5] * 4
    assert torch.allclose(preds[5], learn.model(batches[1][0])[1].softmax(-1))


def test_a_list_of_dicts_has_one_for_each_sample():
    class Detect(nn.Linear):
        def forward(self, x): return [{"boxes": super(Detect, self).forward(row)[None].repeat(3, 1)} for row in x]
    learn = learner(lambda out, y: sum(o["boxes"].mean() for o in out), Detect(4, 4), bs=6)
    preds, _ = learn.get_preds()
    assert len(preds) == 16 and preds[15]["boxes"].shape == (3, 4) and learn.predict(X[0])[0]["boxes"].shape == (3, 4)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 2)

    def forward(self, a, b): return self.lin(torch.cat([a, b], -1))


def test_a_sample_of_several_inputs():
    for make in (lambda a, b: (a, b), lambda a, b: {"b": b, "a": a}):
        batches = [(make(X, X[:, :2]), torch.zeros(16).long())]
        learn = Learner(DataBunch(batches, batches, device="cpu", loss_func=CrossEntropyFlat(), classes=["n", "p"]),
                        Two(), silent=True)
        want = learn.model(X[:1], X[:1, :2]).softmax(1)[0]
        assert torch.allclose(learn.predict(make(X[0], X[0, :2]))[2], want)
        assert torch.allclose(learn.predict(make(X[0].numpy(), X[0, :2].numpy()))[2], want)
        assert torch.allclose(learn.get_preds(dl=[make(row, row[:2]) for row in X] if isinstance(
            make(1, 2), dict) else make(X, X[:, :2]))[0][0], want)


def test_predictions_of_what_is_given():
    learn = fake_learner()
    x = torch.randn(12, 5)
    want = learn.model(x).softmax(1)
    y = torch.zeros(12).long()
    for given in ([(x[:8], y[:8]), (x[8:], y[8:])], DataLoader(TensorDataset(x, y), 5), TensorDataset(x, y), x,
                  x.numpy(), list(x), lambda: iter([(x, y)]), learn.data.test_on(x), x.double().numpy()):
        for found in (learn.get_preds(dl=given), learn.get_preds(given)):
            assert torch.allclose(found[0], want, atol=1e-6) and torch.equal(found[1], y)
    assert len(learn.get_preds("train", n_batch=1)[0]) == 5
    with pytest.raises(ValueError, match="there is not one sample to predict on"):
        learn.get_preds(dl=[])
    with pytest.raises(ValueError, match="there is no 'vaild' data"):
        learn.get_preds("vaild")


def test_a_batch_of_predictions():
    learn = fake_learner()
    x, y = learn.data.one_batch(DatasetType.Valid)
    want = learn.model(x).softmax(1)
    assert torch.allclose(learn.pred_batch(), want) and torch.allclose(learn.pred_batch(batch=(x, y)), want)


class Noisy(Dataset):
    def __len__(self): return 10

    def __getitem__(self, i): return X[i] + torch.randn(4), i % 2


def test_passes_to_average_draw_anew_and_leave_no_trace():
    learn = learner(CrossEntropyFlat(), Fixed([[0., 0, 0, 0], [1., 2, 0, 0]]), torch.arange(10) % 2, X[:10], bs=5)
    noisy = DataBunch.create(Noisy(), Noisy(), bs=4, seed=0, device="cpu").valid_dl
    alike = [learn.get_preds(dl=noisy)[0] for _ in range(8)]
    noisy.dl.passes = 0
    state = noisy.state_dict(), torch.get_rng_state()
    for dls in ([noisy] * 8, [DataLoader(Noisy(), 5)] * 8):
        plain, mean, targets = learn.TTA(beta=None, dls=dls)
        averaged, _ = learn.TTA(dls=dls)
        assert torch.allclose(averaged, 0.4 * plain + 0.6 * mean, atol=1e-6)
        assert torch.equal(targets, torch.arange(10) % 2)
        assert (mean - plain).abs().min() > 1e-4 and torch.equal(plain, learn.get_preds()[0])
        assert noisy.state_dict() == state[0] and torch.equal(torch.get_rng_state(), state[1])
        if dls[0] is noisy:
            assert torch.allclose(mean, torch.stack(alike).mean(0), atol=1e-6)


def test_passes_to_average_must_fit():
    learn = fake_learner()
    with pytest.raises(ValueError, match="test-time augmentation needs pictures with transforms"):
        learn.tta()
    with pytest.raises(ValueError, match="have other samples than the plain one, or another order"):
        learn.TTA(dls=[learn.data.fix_dl])
    with pytest.raises(ValueError, match="beta is the weight of the plain predictions, from 0 to 1, or None, not 1.5"):
        learn.TTA(beta=1.5, dls=[learn.data.valid_dl])
    plain, targets, losses = learn.TTA(beta=1, dls=[learn.data.valid_dl], with_loss=True)
    assert torch.equal(plain, learn.get_preds()[0]) and torch.equal(losses, learn.get_preds(with_loss=True)[2])


def test_an_unknown_loss_goes_by_the_classes():
    learn = learner(lambda o, y: F.cross_entropy(o, y), Fixed([[0., 0, 0, 0], [1., 0, 0, 0]]), classes=["n", "p"])
    assert learn.predict(HIGH)[0] == "p" and learn.predict(HIGH)[2].tolist() == [0, 5]
    learn.data.classes = None
    value, index, output = learn.predict(HIGH)
    assert value is index and value.tolist() == output.tolist() == [0, 5]
    assert fake_data().loss_func is not None and np.isfinite(learn.validate()[0])


class Stacks:
    """Collates by an object that is called."""

    def __call__(self, samples):
        return list(samples)


@pytest.mark.parametrize("collate_fn", [list, tuple, Stacks(), lambda samples: samples])
def test_what_collates_may_be_a_class(collate_fn):
    samples = [(torch.randn(5), torch.tensor(i % 4)) for i in range(8)]
    data = DataBunch.create(samples, samples, bs=4, collate_fn=collate_fn, loss_func=nn.CrossEntropyLoss(),
                            to_pair=lambda batch: tuple(map(torch.stack, zip(*batch, strict=True))))
    learn = Learner(data, nn.Linear(5, 4), silent=True)
    learn.lr_find(num_it=4)
    assert learn.get_preds()[0].shape == (8, 4) and learn.get_preds()[1].tolist() == [0, 1, 2, 3] * 2


def test_predictions_keep_no_outputs_beside_them():
    seen, most = [], 0

    def activ(output):
        nonlocal most
        seen.append(weakref.ref(output))
        most = max(most, sum(ref() is not None for ref in seen))
        return output.softmax(-1)

    preds, _ = learner(CrossEntropyFlat(), nn.Linear(4, 3), bs=2).get_preds(activ=activ)
    assert preds.shape == (16, 3) and len(seen) == 8 and most <= 2     # the batch at hand, perhaps the one before
