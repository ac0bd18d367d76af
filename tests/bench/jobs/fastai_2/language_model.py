from fastai.text.all import *
from language_model import CharRNN, text


def main(n_words=12000, epochs=4):
    set_seed(0)
    train, valid = text(n_words, seed=0), text(n_words // 10, seed=1)
    letters = sorted(set(train))
    numbers = [tensor([letters.index(c) for c in part]) for part in (train, valid)]
    dls = DataLoaders(*(LMDataLoader([part], bs=20, seq_len=40) for part in numbers))
    learn = Learner(dls, CharRNN(len(letters)), CrossEntropyLossFlat(), metrics=[accuracy, Perplexity()],
                    cbs=ModelResetter())
    learn.fit_one_cycle(epochs, 1e-2)
    learn.model.reset()
    said = [letters.index(" ")]
    for _ in range(60):
        said.append(int(learn.model(tensor([said[-1:]]))[0, -1].softmax(0).multinomial(1)))
    print("it says:", "".join(letters[i] for i in said))
