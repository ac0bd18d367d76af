from fastai.vision.all import *
from multi_label import SHAPES, pictures
from same import small_net
from torch.utils.data import TensorDataset


def main(n=2000, epochs=6):
    set_seed(0)
    train, valid = (TensorDataset(*map(tensor, pictures(k, seed))) for k, seed in ((n, 0), (n // 4, 1)))
    dls = DataLoaders.from_dsets(train, valid, bs=32)
    learn = Learner(dls, small_net(1, 3), BCEWithLogitsLossFlat(), metrics=[accuracy_multi, F1ScoreMulti()])
    learn.fit_one_cycle(epochs, 2e-2)
    probabilities = learn.get_preds(dl=dls.valid.new([valid[0]]))[0][0]
    names = [name for name, p in zip(SHAPES, probabilities, strict=True) if p > 0.5]
    print(f"picture 0 shows {names}, with probabilities {probabilities.numpy().round(2)}")
