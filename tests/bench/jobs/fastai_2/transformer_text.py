from fastai.text.all import *
from torch.utils.data import default_collate
from transformer_text import VOCABULARY, Dicts, right
from transformers import BertConfig, BertForSequenceClassification


def pair(samples):
    batch = default_collate(samples)
    return batch, batch["labels"]


class FromDict(Module):
    def __init__(self, model):
        self.model = model

    def forward(self, batch):
        return self.model(**batch)


def own_loss(output, target):
    return output.loss


def main(n=2000, epochs=6):
    set_seed(0)
    config = BertConfig(vocab_size=len(VOCABULARY), hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=96, max_position_embeddings=16)
    dls = DataLoaders.from_dsets(Dicts(n, seed=0), Dicts(500, seed=1), bs=32, create_batch=pair)
    learn = Learner(dls, FromDict(BertForSequenceClassification(config)), own_loss, metrics=[right])
    learn.fit_one_cycle(epochs, 2e-3)
