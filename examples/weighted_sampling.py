"""A rare class: `sampler="balanced"` draws each class equally often, a weight for each sample does anything else."""
from minifast.basics import *


def points(n, seed, rare=0.03):
    """Two clouds that overlap; one sample in thirty is of class 1."""
    gen = torch.Generator().manual_seed(seed)
    y = (torch.rand(n, generator=gen) < rare).long()
    return torch.randn(n, 2, generator=gen) + 2.0 * y[:, None], y


def main(n=6000, epochs=6):
    found = {}
    for name, sampler in {"as they come": None, "balanced": "balanced"}.items():
        torch.manual_seed(0)
        data = DataBunch.from_arrays(*points(n, seed=0), valid=points(n, seed=1), bs=64, sampler=sampler)
        learn = Learner(data, nn.Linear(2, 2), metrics=[accuracy, Recall(), Precision()], silent=True)
        learn.fit_one_cycle(epochs, 0.1)
        found[name] = dict(zip(learn.recorder.names[2:], learn.validate(), strict=False))
        print(f"{name:14}", {metric: round(value, 3) for metric, value in found[name].items()})
    return found


if __name__ == "__main__":
    main()
