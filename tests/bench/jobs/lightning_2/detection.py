import lightning as L
import torch
from detection import Squares, mean_iou, model
from same import QUIET
from torch.utils.data import DataLoader


class Detection(L.LightningModule):
    def __init__(self, model, max_lr):
        super().__init__()
        self.model, self.max_lr = model, max_lr

    def training_step(self, batch, i):
        losses = self.model(*batch)
        self.log_dict(losses, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch[0]))
        return sum(losses.values())

    def validation_step(self, batch, i):
        images, targets = batch
        self.log("mean_iou", mean_iou(self.model(images), targets), prog_bar=True, batch_size=len(images))

    def configure_optimizers(self):
        opt = torch.optim.AdamW(self.parameters(), betas=(0.9, 0.99))
        cycle = torch.optim.lr_scheduler.OneCycleLR(opt, self.max_lr, self.trainer.estimated_stepping_batches)
        return [opt], [{"scheduler": cycle, "interval": "step"}]


def pair(samples):
    return tuple(map(list, zip(*samples, strict=True)))


def main(n=300, epochs=8):
    L.seed_everything(0, verbose=False)
    train = DataLoader(Squares(n, seed=0), 10, shuffle=True, collate_fn=pair)
    valid = DataLoader(Squares(60, seed=1), 10, collate_fn=pair)
    L.Trainer(max_epochs=epochs, **QUIET).fit(Detection(model(), 1e-3), train, valid)
