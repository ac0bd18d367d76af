"""A run that crashes goes on at the next batch, also with changed code: what changed must be allowed by name."""
import tempfile

from minifast.basics import *


class Crash(Callback):
    """Ends the process's luck at some batch."""

    role = "watching"

    def __init__(self, at):
        self.at = at

    def on_batch_begin(self, train, iteration):
        if train and iteration == self.at:
            raise OSError("the disk is gone")


def train(folder, crash_at=None, wd=0.01, allow=()):
    torch.manual_seed(0)
    x = torch.randn(640, 10)
    data = DataBunch.from_arrays(x, (x.sum(1) > 0).long(), bs=32, seed=0, path=folder)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))
    learn = Learner(data, model, metrics=[accuracy], wd=wd, silent=True)
    run = Checkpoint(learn, "run", every=5, allow=allow)
    learn.fit_one_cycle(4, 1e-2, callbacks=[run, *([] if crash_at is None else [Crash(crash_at)])])
    return learn


def main():
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(folder, crash_at=37)
        except OSError as e:
            print("the first process:", e)
        try:
            train(folder, wd=0.1)
        except ValueError as e:
            print("with another weight decay:", str(e)[:160], "...")
        changed = train(folder, wd=0.1, allow=["wd", "weight_decay"])
        print(f"allowed: {len(changed.recorder.lrs)} batches are recorded, accuracy {changed.validate()[1]:.3f}")
    return changed


if __name__ == "__main__":
    main()
