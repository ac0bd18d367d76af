from fastai.tabular.all import *
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch.utils.data import TensorDataset


def main(folds=5, epochs=8):
    x, y = load_breast_cancer(return_X_y=True)
    scores = []
    for rows in StratifiedKFold(folds, shuffle=True, random_state=0).split(x, y):
        set_seed(0)
        scale = StandardScaler().fit(x[rows[0]])
        dls = DataLoaders.from_dsets(*(TensorDataset(tensor(scale.transform(x[r])).float(), tensor(y[r]))
                                       for r in rows), bs=32)
        learn = Learner(dls, nn.Linear(30, 2), CrossEntropyLossFlat(), metrics=[accuracy])
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, 3e-2)
            scores.append(learn.validate()[1])
    print(f"accuracy {np.mean(scores):.4f} ± {np.std(scores):.4f} over {folds} folds: {np.round(scores, 3).tolist()}")
