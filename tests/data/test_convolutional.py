"""Networks for images."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from expunge import planning
from expunge.core.certificate import Verdict
from expunge.core.errors import InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.data.cifar import IMAGENET_MEAN, IMAGENET_STD, cifar10
from expunge.data.idx import mnist
from expunge.data.rows import Rows
from expunge.methods import registry
from expunge.tasks.classification import Classification
from expunge.tasks.convolutional import cifar_resnet, conv_bn_net, resnet18, small_cnn
from expunge.tasks.networks import mlp
from expunge.training.recipes import Stochastic
from expunge.training.store import load_checkpoint

NETWORKS = {
    "small_cnn": (lambda: small_cnn(1, 7), (1, 28, 28)),
    "small_cnn odd": (lambda: small_cnn(3, 7, widths=(4, 5), hidden=6, size=(17, 30)), (3, 17, 30)),
    "conv_bn_net": (lambda: conv_bn_net(3, 7), (3, 32, 32)),
    "conv_bn_net odd": (lambda: conv_bn_net(1, 7, (2, 3, 4), size=(29, 9)), (1, 29, 9)),
    "resnet18": (lambda: resnet18(7, width=4), (3, 32, 32)),
    "resnet18 imagenet": (lambda: resnet18(7, width=4, channels_in=1, stem="imagenet"), (1, 64, 48)),
    "cifar_resnet": (lambda: cifar_resnet(8, 7), (3, 32, 32)),
    "mlp": (lambda: mlp(12, 7), (3, 2, 2)),
    "mlp linear": (lambda: mlp(12, 7, hidden=()), (12,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_ends_in_its_one_head(name):
    """Logits are an affine map of what enters the last linear layer, and nothing comes after it."""
    make, shape = NETWORKS[name]
    model = make().eval()
    (head_name, head) = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    assert head.out_features == 7 and list(model.state_dict())[-2:] == [f"{head_name}.weight", f"{head_name}.bias"]
    seen = []
    head.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    logits = model(torch.randn(3, *shape))
    assert logits.shape == (3, 7) and len(seen) == 1 and seen[0][1] is logits
    assert seen[0][0].shape == (3, head.in_features)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_runs_as_a_task(name):
    make, shape = NETWORKS[name]
    task = Classification(make)
    data = Rows.of(torch.randn(8, *shape), torch.arange(8) % 7)
    task.check(data)
    trained = Stochastic(epochs=1, lr=0.01, batch_size=4).fit(task, data, seed=1)
    assert (
        trained.artifact.digest == Stochastic(epochs=1, lr=0.01, batch_size=4).fit(task, data, seed=1).artifact.digest
    )
    assert trained.fact("buffers_moved") is any("running_mean" in key for key in trained.artifact.tensors)
    with pytest.raises(InputError, match="does not accept rows of shape"):
        task.check(Rows.of(torch.randn(8, shape[0] + 1, *shape[1:]), torch.arange(8) % 7))


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        (lambda: resnet18(10), 11_173_962), (lambda: resnet18(1000, stem="imagenet"), 11_689_512),
        (lambda: cifar_resnet(20), 269_722), (lambda: cifar_resnet(56), 853_018),
    ],
)  # fmt: skip
def test_published_sizes(model, weights):
    assert sum(p.numel() for p in model().parameters()) == weights


def test_shortcuts_without_weights_keep_every_second_pixel():
    model = cifar_resnet(8).eval()
    block = model.layer2[0]
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block.downsample(x)[:, 8:24], x[:, :, ::2, ::2])
    assert not block.downsample(x)[:, :8].any() and not block.downsample(x)[:, 24:].any()


def test_a_projected_shortcut_is_the_strided_convolution():
    block = resnet18(10, width=8).eval().layer2[0]
    x = torch.randn(2, 8, 9, 7)
    strided = nn.functional.conv2d(x, block.downsample[0].weight, stride=2)
    assert torch.allclose(block.downsample(x), block.downsample[1](strided), atol=1e-6)
    assert {name for name in block.state_dict() if "weight" in name and "downsample" in name} == {
        "downsample.0.weight", "downsample.1.weight",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cifar_resnet(18), "depth of 6 n . 2"),
        (lambda: cifar_resnet(2), "depth of 6 n . 2"),
        (lambda: resnet18(10, stem="tiny"), "stem cifar or imagenet; got 'tiny'"),  # type: ignore[arg-type]
        (lambda: resnet18(10, width=0), "width.s. of at least 1"),
        (lambda: small_cnn(1, 10, widths=(3,)), "2 width"),
        (lambda: conv_bn_net(1, 10, (1, 2)), "3 width"),
        (lambda: conv_bn_net(1, 10, size=7), "at least 8 pixels; got 7"),
        (lambda: small_cnn(1, 10, size=(9, 9, 9)), "side or .height, width."),
    ],
)
def test_settings_that_make_no_network(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.slow
def test_the_small_network_learns_mnist_in_seconds(real_data):
    train, test = mnist(real_data("mnist"), limit=5_000, test_limit=2_000)
    for seed in (0, 1):
        task = Classification(lambda: small_cnn(1, 10))
        recipe = Stochastic(epochs=4, lr=0.1, momentum=0.9, schedule="cosine")
        model = task.build(recipe.fit(task, train, seed=seed).artifact.tensors).eval()
        with torch.no_grad():
            right = (model(test.x).argmax(1) == test.y).float().mean()
        assert float(right) > 0.94


@pytest.fixture(scope="module")
def pretrained(real_data):
    return load_file(real_data("cifar10_resnets") / "cifar10_resnets" / "resnet20.safetensors")


@pytest.mark.slow
def test_the_pretrained_resnet_reaches_its_published_accuracy(real_data, pretrained):
    _, test = cifar10(real_data("cifar10"), limit=10, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    model = Classification(cifar_resnet).build(pretrained).eval()
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in test.x.split(100)]) == test.y
    assert float(right.float().mean()) == pytest.approx(0.9165, abs=0.003)


def test_the_deep_pretrained_resnet_has_our_names(real_data):
    path = real_data("cifar10_resnets") / "cifar10_resnets" / "resnet56.safetensors"
    Classification(lambda: cifar_resnet(56)).build(load_checkpoint(path))
    with pytest.raises(InputError, match="another architecture"):
        Classification(cifar_resnet).build(load_checkpoint(path))


def test_a_pretrained_network_without_its_data_promises_nothing(pretrained):
    task = Classification(cifar_resnet)
    trained = planning.adopt(task, pretrained)
    assert trained.data is None and trained.recipe is None and trained.trail is None and not trained.facts
    request = Request("somebody", (Target("samples", {"ids": [3]}),))
    for name in registry.targets():
        with pytest.raises(RefusedError, match="training data of this model are unknown"):
            planning.plan(trained, request, registry.make(name))


def test_material_alone_lets_no_method_promise_anything_either(pretrained):
    task = Classification(cifar_resnet)
    trained = planning.adopt(task, pretrained)
    material = Rows.of(torch.randn(4, 3, 32, 32), torch.tensor([1, 2, 3, 4]))
    request = Request("somebody", (Target("samples", {"ids": [0, 1]}),))
    ran = []
    for name in registry.targets():
        try:
            plan = planning.plan(trained, request, registry.make(name), material=material)
        except RefusedError:
            continue
        ran.append(name)
        certificate = plan.run().certificate
        assert certificate is None or certificate.verdict is Verdict.VOID
    assert "retrain" not in ran and "fine_tune" not in ran, "they need data that nobody has"
