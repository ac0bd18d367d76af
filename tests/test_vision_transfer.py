"""A known network with a new head: where it is cut, what is trained, where its weights come from."""
import functools
import hashlib
import http.server
import threading
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from minifast.fakes import fake_data, fake_pictures
from minifast.vision import *
from minifast.vision.backbones import backbone, features_of

SMALL = {   # the smallest of each family, and the channels of its features
    "resnet18": 512, "resnext50_32x4d": 2048, "squeezenet1_1": 512, "densenet121": 1024, "vgg11": 512, "vgg11_bn": 512,
    "alexnet": 256, "mobilenet_v2": 1280, "mobilenet_v3_small": 576, "mnasnet0_5": 1280, "shufflenet_v2_x0_5": 1024,
    "efficientnet_b0": 1280, "regnet_x_400mf": 400, "convnext_tiny": 768, "googlenet": 1024, "inception_v3": 2048,
    "swin_t": 768, "maxvit_t": 512, "vit_b_32": 768}


@pytest.fixture
def data(tmp_path):
    return fake_pictures(tmp_path / "pictures", size=64)


@pytest.mark.parametrize("name", SMALL)
def test_each_family_of_torchvision_is_cut_where_its_features_end(name):
    found = backbone(getattr(models, name), False)
    features = features_of(found.body)
    assert features.ndim == 4 and features.shape[1] == SMALL[name]
    groups = split_model(found.body, found.groups)
    assert len(groups) == (3 if name.startswith("squeeze") else 2) and all(list(g.parameters()) for g in groups)
    assert not [p for p in found.body.parameters() if p.shape[0] == 1000]      # the layer for ImageNet's classes


def test_every_classification_family_of_torchvision_has_a_rule():
    import torchvision
    names = torchvision.models.list_models(module=torchvision.models)
    families = {torchvision.models.get_model_builder(name).__module__ for name in names}
    assert families == {getattr(models, name).__module__ for name in SMALL}


def test_the_body_computes_what_the_network_computes_before_its_head():
    torch.manual_seed(1)
    net = models.resnet18(weights=None).eval()
    x = torch.rand(2, 3, 64, 64)
    body = create_body(net, False).eval()
    assert torch.equal(net.fc(body(x).mean((2, 3))), net(x))
    vit = models.vit_b_32(weights=None).eval()
    nn.init.normal_(vit.heads[0].weight)    # zeros otherwise
    x = torch.rand(2, 3, 224, 224)
    assert torch.equal(vit.heads(create_body(vit, False).eval()(x)[..., 0, 0]), vit(x))
    assert len(vit.heads) == 1 and len(list(net.children())) == 10     # the models given are left unchanged


def test_googlenet_normalises_by_itself():
    net = models.googlenet(weights=None, init_weights=True, aux_logits=False, transform_input=True).eval()
    x = torch.rand(1, 3, 64, 64)
    assert torch.allclose(net.fc(create_body(net, False).eval()(x).mean((2, 3))), net(x), atol=1e-5)


def test_v1s_cut_and_groups_of_a_resnet(data):
    learn = cnn_learner(data, models.resnet18, pretrained=False, silent=True)
    body, head = learn.model
    assert len(body) == 8 and next(learn.layer_groups[1].parameters()) is body[6][0].conv1.weight
    assert next(learn.layer_groups[2].parameters()) is head[2].weight
    kinds = ["AdaptiveConcatPool2d", "Flatten", "BatchNorm1d", "Dropout", "Linear", "ReLU", "BatchNorm1d", "Dropout",
             "Linear"]
    assert [type(m).__name__ for m in head] == kinds
    assert (head[2].num_features, head[4].out_features, head[3].p, head[7].p) == (1024, 512, 0.25, 0.5)


def test_the_head_is_made_as_asked():
    head = create_head(8, 3, lin_ftrs=[5, 4], ps=[0.1, 0, 0.3], concat_pool=False, bn_final=True)
    assert [m.out_features for m in head if isinstance(m, nn.Linear)] == [5, 4, 3]
    assert [m.p for m in head if isinstance(m, nn.Dropout)] == [0.1, 0.3] and head[-1].momentum == 0.01
    assert head(torch.rand(2, 8, 3, 3)).shape == (2, 3)
    with pytest.raises(ValueError, match="one for each of the 2 linear layers"):
        create_head(8, 3, ps=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="from 0 to below 1"):
        create_head(8, 3, ps=1.5)


def test_init_reaches_the_heads_layers_but_not_batch_norm(data):
    learn = cnn_learner(data, models.resnet18, pretrained=False, init=lambda w: nn.init.constant_(w, 0.5))
    head = learn.model[1]
    assert (head[4].weight == 0.5).all() and (head[4].bias == 0).all() and (head[2].weight == 1).all()
    assert not (learn.model[0][0].weight == 0.5).any()


def test_a_trained_body_is_frozen_and_trained_after_unfreeze(data):
    net = models.resnet18(weights=None)     # given as an object, it counts as trained
    learn = cnn_learner(data, net, silent=True)
    before = {name: p.clone() for name, p in learn.model.named_parameters()}
    learn.fit_one_cycle(1, 1e-2)
    moved = {name for name, p in learn.model.named_parameters() if not torch.equal(p, before[name])}
    assert "1.8.weight" in moved and "0.0.weight" not in moved and "0.1.weight" in moved    # batch norm goes on
    learn.save("stage-1")
    learn.unfreeze()
    learn.fit_one_cycle(1, slice(1e-5, 1e-3))
    assert learn.opt.values("lr")[0] < learn.opt.values("lr")[2]
    assert not torch.equal(dict(learn.model.named_parameters())["0.0.weight"], before["0.0.weight"])
    with pytest.warns(UserWarning, match="the optimizer's state in it is left out"):
        learn.load("stage-1")
    assert torch.equal(dict(learn.model.named_parameters())["0.0.weight"], before["0.0.weight"])
    learn.fit_one_cycle(1, 1e-3)


def test_outputs_go_by_the_labels(tmp_path):
    data = fake_pictures(tmp_path / "p", classes=("a", "b", "c"), size=64)
    assert cnn_learner(data, models.resnet18, pretrained=False).model[1][-1].out_features == 3
    files = get_image_files(tmp_path / "p", recurse=True)
    for label, n in ((0.5, 1), ([0.5, 1.5], 2)):
        data = ImageDataBunch.from_lists(tmp_path, files, [label] * len(files), bs=4, device="cpu")
        assert cnn_learner(data, models.resnet18, pretrained=False).model[1][-1].out_features == n
    with pytest.raises(ValueError, match="neither classes nor quantities"):
        cnn_learner(fake_data(), models.resnet18, pretrained=False)


def test_a_size_that_the_network_does_not_take_is_named(data):
    with pytest.raises(ValueError, match="takes no pictures of 64x64.*Expected 224"):
        cnn_learner(data, models.vit_b_32, pretrained=False)


# ---- models given as objects

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.pool, self.fc = nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 10)

    def forward(self, x):
        return self.fc(self.pool(self.first(x)).flatten(1))


class LikeTimm(nn.Module):
    """timm's interface."""

    num_features = 6
    pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}

    def __init__(self, form):
        super().__init__()
        self.form, self.stem, self.head = form, nn.Conv2d(3, 6, 8, 8), nn.Linear(6, 10)

    def forward_features(self, x):
        x = self.stem(x)
        return x if self.form == "map" else x.flatten(2).mT if self.form == "tokens" else x.permute(0, 2, 3, 1)

    def reset_classifier(self, n):
        self.head = nn.Linear(6, n) if n else nn.Identity()

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))


def test_other_models_are_cut_before_their_last_pooling(data):
    body = create_body(Plain())
    assert len(body) == 1 and body(torch.rand(1, 3, 8, 8)).shape == (1, 6, 6, 6)
    learn = cnn_learner(data, Plain(), silent=True)
    assert [any(p.requires_grad for p in g.parameters()) for g in learn.layer_groups] == [False, True]
    learn.fit(1)
    with pytest.raises(ValueError, match="not known where to cut a Linear: .* Give cut="):
        create_body(nn.Linear(3, 2))
    assert len(create_body(models.resnet18, False, cut=5)) == 5
    assert isinstance(create_body(models.resnet18, False, cut=lambda net: net.layer1), nn.Sequential)
    with pytest.raises(TypeError, match="cut must return a torch.nn.Module, and returned 3"):
        create_body(models.resnet18, False, cut=lambda net: 3)


@pytest.mark.parametrize(("form", "shape", "width"), [("map", (1, 6, 8, 8), 12), ("tokens", (1, 6, 1, 1), 6),
                                                      ("last", (1, 6, 1, 1), 6)])
def test_models_with_timms_interface(data, form, shape, width):
    net = LikeTimm(form)
    assert create_body(net)(torch.rand(1, 3, 64, 64)).shape == shape and isinstance(net.head, nn.Linear)
    learn = cnn_learner(data, net, silent=True)
    assert learn.model[1][2].num_features == width and data.norm.mean.flatten().tolist() == [0.5] * 3
    learn.fit(1)


def test_what_is_no_architecture_is_named():
    with pytest.raises(TypeError, match="a function such as models.resnet34, or a model, not 'resnet18'"):
        create_body("resnet18")
    with pytest.raises(TypeError, match="takes no argument weights= or pretrained="):
        create_body(Plain)
    with pytest.raises(ValueError, match="resnet18 has no weights 'V9'; it has IMAGENET1K_V1"):
        create_body(models.resnet18, "V9")


# ---- weights

@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine, in place of torchvision's, that has resnet18's weights; and its folder."""
    folder = tmp_path / "server"
    folder.mkdir()
    torch.manual_seed(3)
    torch.save(models.resnet18(weights=None).state_dict(), folder / "w")
    name = f"resnet18-{hashlib.sha256((folder / 'w').read_bytes()).hexdigest()[:8]}.pth"
    (folder / "w").rename(folder / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{httpd.server_port}/{name}"
    monkeypatch.setattr(models.ResNet18_Weights.DEFAULT.value, "url", url)
    yield folder / name
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_weights_are_downloaded_once_and_the_data_is_normalised_as_they_ask(server, tmp_path, data, capfd):
    learn = cnn_learner(data, models.resnet18, silent=True)
    expected = torch.load(server, weights_only=True)
    assert torch.equal(learn.model[0][0].weight, expected["conv1.weight"])
    assert data.norm.mean.flatten().tolist() == pytest.approx(imagenet_stats[0])
    assert [any(p.requires_grad for p in g.parameters() if p.ndim > 1) for g in learn.layer_groups] == [0, 0, 1]
    assert (tmp_path / "home/hub/checkpoints" / server.name).is_file()
    server.unlink()     # what is there is not downloaded again
    assert torch.equal(create_body(models.resnet18, "IMAGENET1K_V1")[0].weight, expected["conv1.weight"])


def test_without_a_network_the_error_says_where_the_file_goes(server, tmp_path, monkeypatch):
    content = server.read_bytes()
    server.unlink()
    place = tmp_path / "home/hub/checkpoints" / server.name
    with pytest.raises(ConnectionError, match="cannot be had from http.*404.*put that file at.*pretrained=False") as e:
        create_body(models.resnet18)
    assert str(place) in str(e.value)
    url = "http://127.0.0.1:9/" + server.name
    monkeypatch.setattr(models.ResNet18_Weights.DEFAULT.value, "url", url)
    with pytest.raises(ConnectionError, match="cannot be had"):
        create_body(models.resnet18)
    place.write_bytes(content)      # put there by hand
    create_body(models.resnet18)
    place.write_bytes(content[:1000])
    with pytest.raises(ValueError, match="is damaged or another file.*Delete it"):
        create_body(models.resnet18)


def test_what_comes_damaged_from_the_network_is_refused(server, tmp_path, capfd):
    server.write_bytes(server.read_bytes()[:-5] + b"12345")
    with pytest.raises(ConnectionError, match="is not the weights of resnet18: invalid hash"):
        create_body(models.resnet18)
    assert not list(Path(tmp_path / "home").rglob("*.pth"))


def test_a_warning_where_the_data_is_normalised_otherwise(server, data, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.normalize(imagenet_stats)
        cnn_learner(data, models.resnet18)
    data.remove_tfm(data.norm)
    data.norm = None
    data.normalize(mnist_stats)
    with pytest.warns(UserWarning, match=r"normalised by \(\(0.485.*this data is normalised by \(\(0.131, 0.131"):
        cnn_learner(data, models.resnet18)
