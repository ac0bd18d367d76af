"""Peak memory columns, and pictures that lie channels last."""
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from minifast.callbacks import peak_memory
from minifast.callbacks.channels_last import ChannelsLast
from minifast.callbacks.peak_memory import PeakMemory
from minifast.data import DataBunch
from minifast.fakes import fake_learner
from minifast.layers import simple_cnn
from minifast.learner import Learner
from minifast.metrics import accuracy


@pytest.fixture
def on_cpu(monkeypatch):
    """A machine without a GPU, which would have a column of its own."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_column_in_mb_that_never_falls(on_cpu):
    learn = fake_learner(metrics=[accuracy])
    learn.fit(2, callbacks=[PeakMemory(learn)])
    assert learn.recorder.names == ["epoch", "train_loss", "valid_loss", "accuracy", "cpu_peak", "time"]
    (_, first), (_, second) = learn.recorder.metrics
    assert 50 < first <= second < 100_000   # a process that has imported torch
    ballast = torch.ones(100, 2**20)        # 400 MB more than now
    learn.fit(1, callbacks=[PeakMemory(learn)])
    assert learn.recorder.metrics[0][1] >= 400 and ballast.sum() > 0


def test_it_keeps_its_place_without_validation_and_without_an_answer(on_cpu, monkeypatch):
    learn = fake_learner(metrics=[accuracy], valid_length=0)
    monkeypatch.setattr(peak_memory, "_cpu_peak", lambda: None)
    learn.fit(1, callbacks=[PeakMemory(learn)])
    assert learn.recorder.val_losses == [None] and learn.recorder.metrics == [[None, None]]


def picture_learner():
    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8)
    ds = TensorDataset(x, x[:, 0, 0, 0].gt(0).long())
    data = DataBunch.create(ds, ds, bs=4, seed=0, loss_func=nn.CrossEntropyLoss())
    return Learner(data, simple_cnn((3, 8, 2)), silent=True)


def test_channels_last_changes_the_layout_and_not_the_numbers():
    class Sees(nn.Module):
        def forward(self, x):
            seen.append(x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous())
            return x

    seen = []
    plain, last = picture_learner(), picture_learner()
    last.model.insert(0, Sees())
    last.to_channels_last()
    assert last.model[1][0].weight.is_contiguous(memory_format=torch.channels_last)
    for learn in (plain, last):
        learn.fit_one_cycle(2, 0.05)
    assert seen == [True] * 8
    torch.testing.assert_close(last.recorder.losses, plain.recorder.losses, rtol=1e-4, atol=1e-5)
    seen.clear()
    last.to_channels_last(False).fit(1)
    assert seen == [False] * 4 and last.callbacks == [] and last.model[1][0].weight.is_contiguous()


def test_other_inputs_are_left_alone():
    x, pictures = torch.randn(2, 3), torch.randn(2, 3, 4, 4)
    answer = ChannelsLast(fake_learner()).on_batch_begin([x, (pictures, "label")])["last_input"]
    assert answer[0] is x and answer[1][1] == "label"
    assert torch.equal(answer[1][0], pictures) and answer[1][0].stride() == (48, 1, 12, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_s_column_is_of_the_epoch():
    learn = fake_learner()
    ballast = torch.ones(2**26, device="cuda")  # 256 MB before the first epoch and gone after it
    del ballast
    learn.fit(1, callbacks=[PeakMemory(learn)])
    assert learn.recorder.names[-2] == "gpu_peak" and learn.recorder.metrics[0][-1] < 256
