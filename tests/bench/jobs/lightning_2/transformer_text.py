import lightning as L
import torch
from same import QUIET
from torch.utils.data import DataLoader
from torchmetrics import Accuracy
from transformer_text import VOCABULARY, Dicts
from transformers import BertConfig, BertForSequenceClassification


class Classifier(L.LightningModule):
    def __init__(self, model, max_lr):
        super().__init__()
        self.model, self.max_lr, self.accuracy = model, max_lr, Accuracy("multiclass", num_classes=2)

    def training_step(self, batch, i):
        loss = self.model(**batch).loss
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch, i):
        output = self.model(**batch)
        self.accuracy(output.logits, batch["labels"])
        self.log_dict({"valid_loss": output.loss, "accuracy": self.accuracy}, prog_bar=True)

    def configure_optimizers(self):
        opt = torch.optim.AdamW(self.parameters(), betas=(0.9, 0.99))
        cycle = torch.optim.lr_scheduler.OneCycleLR(opt, self.max_lr, self.trainer.estimated_stepping_batches)
        return [opt], [{"scheduler": cycle, "interval": "step"}]


def main(n=2000, epochs=6):
    L.seed_everything(0, verbose=False)
    config = BertConfig(vocab_size=len(VOCABULARY), hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=96, max_position_embeddings=16)
    loaders = DataLoader(Dicts(n, seed=0), 32, shuffle=True, drop_last=True), DataLoader(Dicts(500, seed=1), 32)
    task = Classifier(BertForSequenceClassification(config).train(), 2e-3)
    L.Trainer(max_epochs=epochs, **QUIET).fit(task, *loaders)
