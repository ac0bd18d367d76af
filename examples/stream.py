"""Data larger than memory: a generator reads rows from a file on disk, an epoch is a number of batches, not a pass."""
import tempfile

from minifast.basics import *

COLUMNS = 20


def write(path, n_rows, seed=0):
    """A table on disk, part by part: the last column is a weighted sum of the others, with noise."""
    rng = np.random.default_rng(seed)
    weights = np.linspace(-1, 1, COLUMNS)
    table = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, COLUMNS + 1))
    for part in np.array_split(table, 20):
        part[:, :-1] = rng.normal(0, 1, (len(part), COLUMNS))
        part[:, -1] = part[:, :-1] @ weights + rng.normal(0, 0.1, len(part))
    table.flush()
    return weights


def rows_of(path, first, last, bs=128):
    """A function that reads batches: blocks in random order, of which only one at a time is in memory."""
    def batches():
        table = np.load(path, mmap_mode="r")
        blocks = range(first, last, 8 * bs)
        for k in np.random.permutation(len(blocks)):
            block = torch.tensor(table[blocks[k]:min(blocks[k] + 8 * bs, last)])    # this reads it
            for part in block[torch.randperm(len(block))].split(bs):
                yield part[:, :-1], part[:, -1:]
    return batches


def main(n_rows=200_000, epochs=5, n_batches=200):
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights = write(f"{folder}/table.npy", n_rows)
        held_back = n_rows // 10
        train, valid = (rows_of(f"{folder}/table.npy", *rows) for rows in ((held_back, n_rows), (0, held_back)))
        data = DataBunch(train, valid, n_batches=n_batches, loss_func=MSELossFlat())
        learn = Learner(data, nn.Linear(COLUMNS, 1), wd=0)
        learn.fit_one_cycle(epochs, 1e-2)
    error = (learn.model.weight.detach()[0] - torch.from_numpy(weights)).abs().max()
    print(f"largest error of a weight: {float(error):.4f}")
    return learn, error


if __name__ == "__main__":
    main()
