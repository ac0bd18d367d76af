import pytest
import torch

from minifast.fakes import fake_learner
from minifast.interpret import ClassificationInterpretation

PREDS = torch.tensor([[.9, .1, .0], [.2, .7, .1], [.6, .3, .1], [.1, .8, .1], [.0, .9, .1]])
TRUE = torch.tensor([0, 1, 1, 2, 2])


@pytest.fixture
def found():
    learn = fake_learner()
    learn.data.classes = ["a", "b", "c"]
    return ClassificationInterpretation(learn, PREDS, TRUE, torch.tensor([.1, .3, 2., 1., 3.]))


def test_rows_are_actual_and_columns_predicted(found):
    assert found.confusion_matrix().tolist() == [[1, 0, 0], [1, 1, 0], [0, 2, 0]]


def test_the_most_frequent_confusion_comes_first(found):
    assert found.most_confused() == [("c", "b", 2), ("b", "a", 1)]
    assert found.most_confused(min_val=2) == [("c", "b", 2)]


def test_top_losses_and_the_smallest(found):
    values, indices = found.top_losses(2)
    assert values.tolist() == [3., 2.] and indices.tolist() == [4, 2]
    assert found.top_losses(1, largest=False)[1].tolist() == [0] and len(found.top_losses()[0]) == 5


def test_the_picture_shows_every_count(found):
    [axis] = found.plot_confusion_matrix(return_fig=True).axes
    assert [t.get_text() for t in axis.texts] == ["1", "0", "0", "1", "1", "0", "0", "2", "0"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("Predicted", "Actual")


def test_interpret_uses_the_learners_predictions_and_leaves_its_record():
    learn = fake_learner()
    learn.fit(2, 0.1)
    losses = learn.recorder.losses
    found = learn.interpret()
    preds, targets, each = learn.get_preds(with_loss=True)
    assert torch.equal(found.preds, preds) and found.classes == [0, 1, 2, 3]
    assert found.top_losses(1)[0].item() == pytest.approx(float(each.max()))
    assert int(found.confusion_matrix().trace()) == int((preds.argmax(1) == targets).sum())
    assert learn.recorder.losses.tolist() == losses.tolist() and len(losses) == 4
