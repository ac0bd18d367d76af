import lightning as L
import torch
from language_model import CharRNN, batches, text
from same import QUIET
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.text import Perplexity


class LanguageModel(L.LightningModule):
    def __init__(self, model, n, max_lr):
        super().__init__()
        self.model, self.max_lr, self.perplexity = model, max_lr, Perplexity()
        self.accuracy = MulticlassAccuracy(n, average="micro")

    def on_train_epoch_start(self):
        self.model.reset()

    def on_validation_epoch_start(self):
        self.model.reset()

    def training_step(self, batch, i):
        x, y = batch
        loss = F.cross_entropy(self.model(x).mT, y)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch, i):
        x, y = batch
        output = self.model(x)
        self.log("valid_loss", F.cross_entropy(output.mT, y), prog_bar=True)
        self.accuracy(output.mT, y)
        self.perplexity(output, y)
        self.log_dict({"accuracy": self.accuracy, "perplexity": self.perplexity}, prog_bar=True)

    def configure_optimizers(self):
        opt = torch.optim.AdamW(self.parameters(), betas=(0.9, 0.99))
        cycle = torch.optim.lr_scheduler.OneCycleLR(opt, self.max_lr, self.trainer.estimated_stepping_batches)
        return [opt], [{"scheduler": cycle, "interval": "step"}]


def main(n_words=12000, epochs=4):
    L.seed_everything(0, verbose=False)
    train, valid = text(n_words, seed=0), text(n_words // 10, seed=1)
    letters = sorted(set(train))
    numbers = [torch.tensor([letters.index(c) for c in part]) for part in (train, valid)]
    task = LanguageModel(CharRNN(len(letters)), len(letters), 1e-2)
    L.Trainer(max_epochs=epochs, **QUIET).fit(task, *(DataLoader(batches(part), batch_size=None) for part in numbers))
    task.eval().model.reset()
    said = [letters.index(" ")]
    for _ in range(60):
        said.append(int(task.model(torch.tensor([said[-1:]]))[0, -1].softmax(0).multinomial(1)))
    print("it says:", "".join(letters[i] for i in said))
