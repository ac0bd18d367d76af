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


def main(epochs=30, n_labels=60):
    x, y = load_digits(return_X_y=True)
    x, valid = x / 16, (x[1000:] / 16, y[1000:])
    found = {}
    for name in ("teacher", "student alone", "student taught"):
        torch.manual_seed(0)
        n = n_labels if name == "student alone" else 1000       # the taught one is shown them without their labels
        data = DataBunch.from_arrays(x[:n], y[:n], valid=valid, bs=20, seed=0, loss_func=soft_or_hard)
        learn = Learner(data, net(256 if name == "teacher" else 16), metrics=[accuracy], silent=True)
        taught = [Teacher(learn, teacher)] if name == "student taught" else []      # noqa: F821
        learn.fit_one_cycle(epochs * 1000 // n, 1e-2, callbacks=taught)
        if name == "teacher":
            teacher = learn.model
        found[name] = learn.validate()[1]
        print(f"{name:15} accuracy {found[name]:.4f}")
    return found


if __name__ == "__main__":
    main()
