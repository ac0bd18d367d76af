"""Every metric equals scikit-learn's (or torch's) over the whole set at once, however it is cut into batches."""
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as S
from torch import nn, tensor
from torch.utils.data import TensorDataset

from minifast.basics import *
from minifast.data import DataBunch
from minifast.learner import Learner

N = 22      # batches of 7 leave a last one of one sample


def data_of(kind):
    """(outputs, targets, the same without what is ignored for scikit-learn)."""
    g = torch.Generator().manual_seed(2)
    if kind in ("two", "three"):
        c = 2 if kind == "two" else 3
        output, target = torch.randn(N, c, generator=g), torch.randint(c, (N,), generator=g)
        target = target.sort().values.masked_fill(torch.arange(N) % 4 == 1, -100)   # batches of one class
        keep = target >= 0
        return output, target, (output[keep].double().numpy(), target[keep].numpy())
    if kind == "pixels":
        output, target = torch.randn(N, 3, 4, 5, generator=g), torch.randint(3, (N, 4, 5), generator=g)
        target = target.masked_fill(torch.rand(N, 4, 5, generator=g) < 0.4, -100)
        target[8] = -100
        keep = target >= 0
        return output, target, (output.movedim(1, -1)[keep].double().numpy(), target[keep].numpy())
    if kind == "labels":
        output, target = torch.randn(N, 4, generator=g), torch.randint(2, (N, 4), generator=g)
    else:
        output, target = torch.rand(N, 1, generator=g), torch.rand(N, generator=g)
    return output, target, (output.double().squeeze(1).numpy(), target.double().numpy())


def of_classes(score, **kwargs):
    return lambda output, target: score(target, output.argmax(1), **kwargs)


def of_labels(score, thresh, **kwargs):
    return lambda output, target: score(target, torch.tensor(output).sigmoid().numpy() > thresh, **kwargs)


def of_numbers(score):
    return lambda output, target: score(target, output)


def softmax(output):
    return torch.tensor(output).softmax(1).numpy()


CASES = {
    "accuracy": (accuracy, "three", of_classes(S.accuracy_score)),
    "pixels": (partial(accuracy, axis=1), "pixels", of_classes(S.accuracy_score)),
    "error rate": (partial(error_rate, axis=1), "pixels", lambda o, t: 1 - S.accuracy_score(t, o.argmax(1))),
    "foreground": (partial(foreground_acc, void_code=-100), "pixels", of_classes(S.accuracy_score)),
    "top k": (partial(top_k_accuracy, k=2), "three",
              lambda o, t: S.top_k_accuracy_score(t, o, k=2, labels=[0, 1, 2])),
    "thresh": (accuracy_thresh, "labels", lambda o, t: ((o > 0) == t).mean()),
    "fbeta": (fbeta, "labels", of_labels(S.fbeta_score, 0.2, beta=2, average="samples", zero_division=0)),
    "mae": (mae, "numbers", of_numbers(S.mean_absolute_error)),
    "mse": (mse, "numbers", of_numbers(S.mean_squared_error)),
    "rmse": (rmse, "numbers", of_numbers(S.root_mean_squared_error)),
    "msle": (msle, "numbers", of_numbers(S.mean_squared_log_error)),
    "exp_rmspe": (exp_rmspe, "numbers", lambda o, t: (((np.exp(t) - np.exp(o)) / np.exp(t))**2).mean()**0.5),
    "psnr": (psnr, "numbers", lambda o, t: -10 * np.log10(((o - t)**2).mean())),
    "explained": (explained_variance, "numbers", of_numbers(S.explained_variance_score)),
    "r2": (r2_score, "numbers", of_numbers(S.r2_score)),
    "MSE": (MSE(), "numbers", of_numbers(S.mean_squared_error)),
    "MAE": (MAE(), "numbers", of_numbers(S.mean_absolute_error)),
    "RMSE": (RMSE(), "numbers", of_numbers(S.root_mean_squared_error)),
    "R2Score": (R2Score(), "numbers", of_numbers(S.r2_score)),
    "ExplainedVariance": (ExplainedVariance(), "numbers", of_numbers(S.explained_variance_score)),
    "Precision": (Precision(), "two", of_classes(S.precision_score)),
    "Recall": (Recall(pos_label=0), "two", of_classes(S.recall_score, pos_label=0)),
    "FBeta": (FBeta(), "two", of_classes(S.fbeta_score, beta=2)),
    **{f"Precision {a}": (Precision(a), "three", of_classes(S.precision_score, average=a))
       for a in ("micro", "macro", "weighted")},
    **{f"Recall {a}": (Recall(a), "three", of_classes(S.recall_score, average=a))
       for a in ("micro", "macro", "weighted")},
    **{f"FBeta {a}": (FBeta(a, beta=0.5, axis=1), "pixels", of_classes(S.fbeta_score, beta=0.5, average=a))
       for a in ("micro", "macro", "weighted")},
    **{f"MultiLabelFbeta {a}": (MultiLabelFbeta(average=a), "labels",
                                of_labels(S.fbeta_score, 0.3, beta=2, average=a))
       for a in ("micro", "macro", "weighted")},
    **{f"kappa {w}": (KappaScore(w), "three", of_classes(S.cohen_kappa_score, weights=w))
       for w in (None, "linear", "quadratic")},
    "matthews": (MatthewsCorreff(), "three", of_classes(S.matthews_corrcoef)),
    "AUROC": (AUROC(), "two", lambda o, t: S.roc_auc_score(t, softmax(o)[:, 1])),
    "Perplexity": (Perplexity(axis=1), "pixels", lambda o, t: np.exp(S.log_loss(t, softmax(o), labels=[0, 1, 2]))),
    "a loss": (nn.CrossEntropyLoss(), "pixels", lambda o, t: S.log_loss(t, softmax(o), labels=[0, 1, 2])),
}


def measured(metric, output, target, bs):
    data = DataBunch([(output[i:i + bs], target[i:i + bs]) for i in range(0, len(output), bs)], valid_dl=None,
                     loss_func=lambda output, target: output.mean())
    learn = Learner(data, nn.Identity(), silent=True, metrics=[metric])
    return learn.validate(data.train_dl)[1]


@pytest.mark.parametrize("bs", [1, 7, 64])
@pytest.mark.parametrize("metric, kind, reference", CASES.values(), ids=CASES)
def test_equal_to_scikit_learn_over_the_whole_set(metric, kind, reference, bs):
    output, target, known = data_of(kind)
    assert measured(metric, output, target, bs) == pytest.approx(reference(*known), abs=1e-6, rel=1e-6)


def test_a_confusion_matrix_without_a_learner():
    output, target, (o, t) = data_of("pixels")
    matrix = ConfusionMatrix(axis=1)
    for i in range(0, N, 7):
        matrix.update(output[i:i + 7], target[i:i + 7])
    assert matrix.compute().tolist() == S.confusion_matrix(t, o.argmax(1)).tolist()
    matrix.reset()
    matrix.update(torch.eye(2), tensor([1, 1]))
    assert matrix.compute().tolist() == [[0, 0], [1, 1]]


def test_scores_of_what_never_occurs():
    score = Precision()
    score.update(torch.eye(2)[[0, 0]], tensor([0, 1]))      # nothing is predicted to be class 1
    assert score.compute() == 0
    score = MatthewsCorreff()
    score.update(torch.eye(2)[[0, 0]], tensor([0, 1]))
    assert score.compute() == 0
    macro = Recall("macro")     # as scikit-learn's: over the classes that occur
    macro.update(torch.eye(4)[[0, 1]], tensor([0, 0]))
    assert macro.compute() == S.recall_score([0, 0], [0, 1], average="macro", zero_division=0) == 0.25


def test_equal_scores_count_half():
    auroc = AUROC()
    auroc.update(tensor([1.0, 1.0, 2.0, 0.0]), tensor([0, 1, 1, -100]))
    assert auroc.compute() == 0.75


def test_binary_scores_of_more_classes_are_macro_with_a_warning():
    score = Precision()
    score.update(torch.eye(3), tensor([0, 1, 1]))
    with pytest.warns(UserWarning, match="Precision: average='binary' is for two classes and there are 3"):
        value = score.compute()
    assert value == pytest.approx(2 / 3) and score.average == "macro"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score.compute()


@pytest.mark.parametrize("make, words", [
    (lambda: Precision("mean"), "average must be one of 'binary', .* not 'mean'"),
    (lambda: KappaScore("cubic"), "weights must be None, 'linear' or 'quadratic', not 'cubic'"),
    (lambda: Precision().update(torch.eye(2), tensor([1])), r"Precision: outputs of shape \(2, 2\) do not fit 1"),
    (lambda: AUROC().update(torch.eye(3), tensor([0, 1, 1])), "AUROC is for two classes"),
    (lambda: MultiLabelFbeta().update(torch.eye(3), tensor([0, 1, 1])), r"same shape \(n, c\)"),
])
def test_what_does_not_fit_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_ignored_pixels_do_not_count_in_dice():
    output = F.one_hot(tensor([[[1, 1], [0, 0]]]), 2).movedim(-1, 1).float()
    assert dice(output, tensor([[[1, -100], [1, -100]]])) == pytest.approx(2 / 3)


# ---- torchmetrics

torchmetrics = pytest.importorskip("torchmetrics")


def learner_of(output, target, bs, metrics, loss_func=None):
    return Learner(DataBunch.create(TensorDataset(output, target), TensorDataset(output, target), bs=bs, val_bs=bs,
                                    loss_func=loss_func or CrossEntropyFlat()), nn.Identity(), silent=True,
                   metrics=metrics)


@pytest.mark.filterwarnings("ignore:No (positive|negative) samples")
@pytest.mark.parametrize("bs", [1, 7, 22])
def test_torchmetrics_equal_scikit_learn(bs):
    g = torch.Generator().manual_seed(2)
    output, target = torch.randn(N, 2, generator=g), torch.randint(2, (N,), generator=g).sort().values
    metrics = {"auroc": torchmetrics.AUROC(task="multiclass", num_classes=2),
               "f1": torchmetrics.F1Score(task="multiclass", num_classes=2, average="macro")}
    found = learner_of(output, target, bs, metrics).validate()
    predicted, p = output.argmax(1).numpy(), output.double().softmax(1)[:, 1].numpy()
    want = [S.roc_auc_score(target, p), S.f1_score(target, predicted, average="macro")]
    assert found[1:] == pytest.approx(want, abs=1e-6)


def test_torchmetrics_is_given_probabilities():
    output = tensor([0.9, 1.5])     # alone in a batch, it would take the first one for a probability, the second not
    learn = learner_of(output, tensor([0, 1]), 1, [torchmetrics.AUROC(task="binary")], BCEWithLogitsFlat())
    assert learn.validate()[1] == 1


def test_a_collection_has_a_column_for_each():
    class Trained(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            return self.linear(x)

    c = torchmetrics.classification
    output, target, _ = data_of("two")
    target = target.clamp(min=0)
    collection = torchmetrics.MetricCollection({"acc": c.MulticlassAccuracy(2, average="micro"),
                                                "recall": c.MulticlassRecall(2)}, prefix="val_")
    learn = learner_of(output, target, 7, [accuracy, collection])
    learn.model = Trained()
    learn.fit(2, 0.1)
    assert learn.recorder.names[3:6] == ["accuracy", "val_acc", "val_recall"]
    for acc, tm_acc, recall in learn.recorder.metrics:
        assert tm_acc == pytest.approx(acc, abs=1e-6) and 0 <= recall <= 1


def test_a_matrix_is_no_column():
    output, target, _ = data_of("two")
    for metric in (torchmetrics.ConfusionMatrix(task="binary"), ConfusionMatrix()):
        learn = learner_of(output, target.clamp(min=0), 7, [metric])
        if isinstance(metric, nn.Module):
            learn.data.loss_func = learn.loss_func = lambda output, target: output.mean()
            learn.model = nn.Sequential(nn.Flatten(), Column())
        name = "binary_confusion_matrix" if isinstance(metric, nn.Module) else "confusion_matrix"
        with pytest.raises(ValueError, match=rf"the metric {name} returned a tensor of shape \(2, 2\) instead of one "
                                             "number; take its mean"):
            learn.validate()


class Column(nn.Module):
    def forward(self, x):
        return x[:, 1].sigmoid()
