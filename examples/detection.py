"""A detection model of torchvision: lists of pictures and of dicts, a model that returns a dict of losses."""
import torchvision
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from minifast.basics import *


class Squares(torch.utils.data.Dataset):
    """Noise with a bright square; the target is its box and class."""

    def __init__(self, n, seed, size=48):
        rng = np.random.default_rng(seed)
        self.x = torch.tensor(rng.random((n, 3, size, size)) * 0.3).float()
        self.boxes = torch.zeros(n, 1, 4)
        for x, box in zip(self.x, self.boxes, strict=True):
            i, j, side = rng.integers(0, size - 20), rng.integers(0, size - 20), rng.integers(10, 20)
            x[:, i:i + side, j:j + side] += 0.6
            box[0] = torch.tensor([j, i, j + side, i + side])

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], {"boxes": self.boxes[i], "labels": torch.ones(1, dtype=torch.long)}


def pair(batch):
    """Of pairs (picture, dict): the model's two arguments, and what the metric gets, one argument, a list of dicts."""
    images, targets = map(list, zip(*batch, strict=True))
    return (images, targets), [targets]


def mean_iou(outputs, targets):
    """How much the surest box and the true one overlap, as a mean over the pictures."""
    found = [torchvision.ops.box_iou(o["boxes"][:1], t["boxes"]).sum() for o, t in zip(outputs, targets, strict=True)]
    return torch.stack(found).mean()


def model():
    body = nn.Sequential(simple_cnn((3, 16, 32, 64), strides=(2, 2, 1), bn=True)[:3], nn.Conv2d(64, 64, 3, padding=1))
    body.out_channels = 64
    anchors = AnchorGenerator(sizes=((10, 14, 20),), aspect_ratios=((1.0,),))
    return RetinaNet(body, num_classes=2, anchor_generator=anchors, min_size=48, max_size=48, image_mean=[0.2] * 3,
                     image_std=[0.2] * 3, detections_per_img=5)


def main(n=300, epochs=8):
    torch.manual_seed(0)
    data = DataBunch.create(Squares(n, seed=0), Squares(60, seed=1), bs=10, collate_fn=list, to_pair=pair,
                            loss_func=ModelLoss(parts=["classification", "bbox_regression"]))
    learn = Learner(data, model(), metrics=[mean_iou])
    learn.fit_one_cycle(epochs, 1e-3, callbacks=LossMetrics(learn, train=True))
    return learn


if __name__ == "__main__":
    main()
