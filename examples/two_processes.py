"""Two processes train as one: each takes its part of every batch. `launch` starts them; for machines, `torchrun`."""
from sklearn.datasets import load_digits

from minifast.basics import *
from minifast.distributed import launch, world


def train(epochs):
    """What each process does; without others `to_distributed` changes nothing."""
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    data = DataBunch.from_arrays(x / 16, y, bs=64, seed=0)      # of 64 samples each process takes its part
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    learn = Learner(data, model, metrics=[accuracy], silent=True).to_distributed()
    learn.fit_one_cycle(epochs, 1e-2)
    return world(), learn.recorder.train_losses, *learn.validate()


def main(epochs=3):
    found = [train(epochs), launch(train, 2, epochs)]
    for n, losses, loss, right in found:
        print(f"{n} process{'es' * (n > 1)}: training losses {[round(x, 5) for x in losses]}, "
              f"validation {loss:.5f}, accuracy {right:.4f}")
    return found


if __name__ == "__main__":
    main()
