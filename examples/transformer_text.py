"""A model of Hugging Face on text: batches are dicts, which go to it by name; it returns its own loss."""
from transformers import BertConfig, BertForSequenceClassification

from minifast.basics import *

NAMES = ["Ann", "Bob", "Cem", "Dana", "Eli"]
VOCABULARY = ["[PAD]", "[CLS]", "lost", "beat", "to", "yesterday", "again", *NAMES]


def sentences(n, seed):
    """Texts, and whether the one who won comes first in the alphabet: the order of the words must be understood."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(n):
        a, b = rng.choice(NAMES, 2, replace=False)
        won = rng.random() < 0.5
        when = rng.choice(["yesterday", "again"], rng.integers(3))
        texts.append([a, *(["beat"] if won else ["lost", "to"]), b, *when])
        labels.append(int((a < b) == won))
    return texts, labels


def tokens(texts, length=8):
    """Numbers of words, padded, and where there are any: what a tokenizer of Hugging Face returns."""
    ids = [[VOCABULARY.index(word) for word in ["[CLS]", *words]] for words in texts]
    ids = torch.tensor([row + [0] * (length - len(row)) for row in ids])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


class Dicts(torch.utils.data.Dataset):
    """Samples that are dicts, as those of Hugging Face's datasets."""

    def __init__(self, n, seed):
        texts, labels = sentences(n, seed)
        self.columns = {**tokens(texts), "labels": torch.tensor(labels)}

    def __len__(self):
        return len(self.columns["labels"])

    def __getitem__(self, i):
        return {name: column[i] for name, column in self.columns.items()}


def right(output, target):
    return accuracy(output["logits"], target)


def main(n=2000, epochs=6):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(VOCABULARY), hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=96, max_position_embeddings=16)
    data = DataBunch.create(Dicts(n, seed=0), Dicts(500, seed=1), bs=32, loss_func=ModelLoss(),
                            to_pair=lambda batch: (batch, batch["labels"]))     # the model wants the labels, too
    learn = Learner(data, BertForSequenceClassification(config), metrics=[right])
    learn.fit_one_cycle(epochs, 2e-3)
    return learn


if __name__ == "__main__":
    main()
