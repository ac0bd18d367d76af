from pathlib import Path

from export_and_serve import server
from fastai.vision.all import *
from same import small_net
from sklearn.datasets import load_digits


def predictor(file):
    learn = load_learner(file)

    def predict(pictures):
        probabilities, _ = learn.get_preds(dl=learn.dls.test_dl([(tensor(picture),) for picture in pictures]))
        best = probabilities.max(1)
        return [[learn.dls.vocab[i], p] for i, p in zip(best.indices, best.values.tolist(), strict=True)]
    return predict


def train(file="digits.pkl", epochs=5):
    set_seed(0)
    digits = load_digits()
    block = DataBlock((TransformBlock, CategoryBlock), get_x=ItemGetter(0), get_y=ItemGetter(1))
    items = list(zip(tensor(digits.images[:, None] / 16).float(), map(str, digits.target), strict=True))
    learn = Learner(block.dataloaders(items, bs=64), small_net(1, 10, strides=(1, 2, 2)), metrics=[accuracy])
    learn.fit_one_cycle(epochs, 1e-2)
    learn.export(file)
    return learn, Path(file)


def main(port=0):
    learn, file = train()
    with server(predictor(file), port) as httpd:
        print(f"{file} has {file.stat().st_size:,} bytes; listening on http://127.0.0.1:{httpd.server_port}")
        if port:
            httpd.serve_forever()
