"""A character language model: each batch goes on where the last one stopped, and so does the network's state."""
from minifast.basics import *

WORDS = "the cat sat on a mat while two dogs ran after one red ball and then they all slept".split()


def text(n_words, seed):
    """Sentences of a small language: a word is followed by one of two others."""
    rng, word, found = np.random.default_rng(seed), 0, []
    for _ in range(n_words):
        found.append(WORDS[word])
        word = (3 * word + (1 if rng.random() < 0.8 else 5)) % len(WORDS)
    return " ".join(found)


def batches(numbers, bs=20, length=40):
    """`bs` rows of text side by side, cut into pieces: the targets are the characters one place later."""
    rows = numbers[:(len(numbers) - 1) // bs * bs].reshape(bs, -1)
    after = numbers[1:(len(numbers) - 1) // bs * bs + 1].reshape(bs, -1)
    return list(zip(rows.split(length, 1), after.split(length, 1), strict=True))


class CharRNN(nn.Module):
    def __init__(self, n, width=64):
        super().__init__()
        self.embed, self.out = nn.Embedding(n, width), nn.Linear(width, n)
        self.rnn, self.state = nn.GRU(width, width, batch_first=True), None

    def forward(self, x):
        found, state = self.rnn(self.embed(x), self.state)
        self.state = state.detach()     # carried on, without the graph
        return self.out(found)

    def reset(self):    # RNNTrainer calls it at the beginning of each pass
        self.state = None


def main(n_words=12000, epochs=4):
    torch.manual_seed(0)
    train, valid = text(n_words, seed=0), text(n_words // 10, seed=1)
    letters = sorted(set(train))
    numbers = [torch.tensor([letters.index(c) for c in part]) for part in (train, valid)]
    data = DataBunch(*map(batches, numbers), loss_func=CrossEntropyFlat())
    learn = Learner(data, CharRNN(len(letters)), metrics=[accuracy, Perplexity()], callback_fns=RNNTrainer)
    learn.fit_one_cycle(epochs, 1e-2)
    learn.model.reset()
    said = [letters.index(" ")]
    for _ in range(60):
        said.append(int(learn.model(torch.tensor([said[-1:]]))[0, -1].softmax(0).multinomial(1)))
    print("it says:", "".join(letters[i] for i in said))
    return learn, numbers


if __name__ == "__main__":
    main()
