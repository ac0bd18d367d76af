"""A small network learns from a large one's outputs, which need no labels: a callback makes them the targets."""
from sklearn.datasets import load_digits

from minifast.basics import *


class Teacher(LearnerCallback):
    """Training targets become [targets, the teacher's outputs]; those of a validation, and so of metrics, stay."""

    def __init__(self, learn, teacher):
        super().__init__(learn)
        self.teacher = teacher.eval()

    def on_batch_begin(self, last_input, last_target, train):
        if train:
            with torch.no_grad():
                return {"last_target": [last_target, self.teacher(last_input)]}


def soft_or_hard(output, target, soft=None, t=2.0):
    """Cross entropy with the labels, or, at temperature t, with the teacher (arXiv 1503.02531)."""
    if soft is None:
        return F.cross_entropy(output, target)
    return t**2 * F.cross_entropy(output / t, (soft / t).softmax(1))


def net(width):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def learner(n, width):
    """Trains on n of 1000 pictures."""
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    data = DataBunch.from_arrays(x[:n] / 16, y[:n], (x[1000:] / 16, y[1000:]), bs=20, seed=0, loss_func=soft_or_hard)
    return Learner(data, net(width), metrics=[accuracy], silent=True)


def main(epochs=30, n_labels=60):
    teacher, alone, taught = learner(1000, 256), learner(n_labels, 16), learner(1000, 16)
    teacher.fit_one_cycle(epochs, 1e-2)
    alone.fit_one_cycle(epochs * 1000 // n_labels, 1e-2)
    taught.fit_one_cycle(epochs, 1e-2, callbacks=Teacher(taught, teacher.model))     # does not look at the labels
    found = {"teacher": teacher, f"student with {n_labels} labels": alone, "student of the teacher": taught}
    scores = {name: learn.validate()[1] for name, learn in found.items()}
    for name, score in scores.items():
        print(f"{name:22} accuracy {score:.4f}")
    return list(scores.values())


if __name__ == "__main__":
    main()
