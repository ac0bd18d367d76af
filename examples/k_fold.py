"""Cross-validation: one learner for each fold, the same start for all."""
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from minifast.basics import *


def main(folds=5, epochs=8):
    x, y = load_breast_cancer(return_X_y=True)
    scores = []
    for train, valid in StratifiedKFold(folds, shuffle=True, random_state=0).split(x, y):
        torch.manual_seed(0)
        scale = StandardScaler().fit(x[train])      # knows nothing of the fold that is held back
        data = DataBunch.from_arrays(scale.transform(x[train]), y[train], (scale.transform(x[valid]), y[valid]), bs=32)
        learn = Learner(data, nn.Linear(30, 2), metrics=[accuracy], silent=True)
        learn.fit_one_cycle(epochs, 3e-2)
        scores.append(learn.validate()[1])
    print(f"accuracy {np.mean(scores):.4f} ± {np.std(scores):.4f} over {folds} folds: {np.round(scores, 3).tolist()}")
    return scores


if __name__ == "__main__":
    main()
