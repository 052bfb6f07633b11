"""Networks for images, from a two-layer one that trains in seconds to the ResNets of the papers.

Every network ends in exactly one ``nn.Linear``, the classifier head; what enters it is the representation that
methods on representations work with (ManiF-SMC). All take and give

Shapes:
    (n, channels, height, width) → (n, classes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from expunge.core.errors import InputError

Size = int | Sequence[int]  # of an image: side of a square, or (height, width)


def small_cnn(
    channels_in: int, classes: int, *, widths: Sequence[int] = (16, 32), hidden: int = 64, size: Size = 28
) -> nn.Sequential:
    """Two strided convolutions and a hidden layer: 10,000 images of 28 x 28 an epoch take about a second on one core.

    Strides stand in place of pooling, which would cost three times as much. No buffers, so that models of it can
    be trained stacked.

    Args:
        channels_in, classes: channels of the images, and classes.
        widths: channels after each of the two convolutions.
        hidden: width of the representation.
        size: of the images, a side or (height, width).
    """
    first, second = _widths(widths, 2)
    height, width = (_halved(side, 2) for side in _sides(size, least=4))
    return nn.Sequential(
        nn.Conv2d(channels_in, first, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * height * width, hidden), nn.ReLU(),
        nn.Linear(hidden, classes),
    )  # fmt: skip


def conv_bn_net(
    channels_in: int, classes: int, widths: Sequence[int] = (16, 32, 64), *, hidden: int | None = None, size: Size = 32
) -> nn.Sequential:
    """Three times convolution, BatchNorm, ReLU and pooling by 2: our network for CIFAR-10 on two CPU cores.

    The head sees the whole last map (1,024 numbers at 32 x 32), so that the net learns 5,000 images by heart: a model that
    has learnt nothing by heart has nothing to forget. So many numbers want a small step: with momentum 0.9 a learning
    rate of 0.02 reaches 86 % of 5,000 training images and 62 % of the test images in 12 epochs, 0.1 no more than 36 %.

    Args:
        channels_in, classes: channels of the images, and classes.
        widths: channels after each of the three convolutions.
        hidden: width of a layer between map and head, which is then the representation; ``None``: the map itself.
        size: of the images, a side or (height, width).
    """
    widths = _widths(widths, 3)
    height, width = (side // 8 for side in _sides(size, least=8))
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip([channels_in, *widths[:-1]], widths, strict=True):
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    layers.append(nn.Flatten())
    features = widths[-1] * height * width
    if hidden is not None:
        layers += [nn.Linear(features, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden or features, classes))


class ResNet18(nn.Module):
    """The ResNet with four stages of two basic blocks (He et al. 2016), with names as torchvision's checkpoints have them.

    Args:
        width: channels of the first stage; doubled at each next one. 64 is the original.
        stem: ``imagenet`` (7 x 7, stride 2, then pooling: the image shrinks by 4 before the first block) or ``cifar``
            (3 x 3, stride 1), which images of 32 x 32 need and the unlearning papers use.
    """

    def __init__(self, classes: int, width: int, channels_in: int, stem: str):
        super().__init__()
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(channels_in, width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        self.layer1 = _stage(width, width, 2, 1, _Projected)
        self.layer2 = _stage(width, 2 * width, 2, 2, _Projected)
        self.layer3 = _stage(2 * width, 4 * width, 2, 2, _Projected)
        self.layer4 = _stage(4 * width, 8 * width, 2, 2, _Projected)
        self.fc = nn.Linear(8 * width, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (n, 8 width, h, w)
        return self.fc(x.mean((2, 3)))


def resnet18(
    classes: int, width: int = 64, channels_in: int = 3, stem: Literal["cifar", "imagenet"] = "cifar"
) -> ResNet18:
    """See :class:`ResNet18`. Width 16 is what two cores can train on 10,000 images; 64 wants an accelerator.

    Args:
        classes: of the head.
        width: channels of the first stage; each further stage doubles them.
        channels_in: of the images.
        stem: ``cifar`` for a 3 x 3 convolution at full resolution, ``imagenet`` for 7 x 7 with stride and pooling.

    Raises:
        InputError: for another stem.
    """
    if stem not in ("cifar", "imagenet"):
        raise InputError(f"Expected stem cifar or imagenet; got {stem!r}.")
    _widths([width], 1)
    return ResNet18(classes, width, channels_in, stem)


class CifarResNet(nn.Module):
    """The thin ResNets that He et al. (2016, section 4.2) made for CIFAR: three stages of n blocks, depth 6 n + 2.

    Shortcuts that change the shape have no weights (option A): every second pixel, and zeros for the new channels.
    Names as in the pretrained files, ``conv1, bn1, layer{1,2,3}.{i}.{conv1,bn1,conv2,bn2}, linear``.
    """

    def __init__(self, blocks: int, classes: int, width: int, channels_in: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, 1, _Padded)
        self.layer2 = _stage(width, 2 * width, blocks, 2, _Padded)
        self.layer3 = _stage(2 * width, 4 * width, blocks, 2, _Padded)
        self.linear = nn.Linear(4 * width, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))  # (n, 4 width, h / 4, w / 4)
        return self.linear(x.mean((2, 3)))


def cifar_resnet(depth: int = 20, classes: int = 10, width: int = 16, channels_in: int = 3) -> CifarResNet:
    """See :class:`CifarResNet`; depth 20 has 269,722 weights, 56 has 853,018.

    Args:
        depth: 6 n + 2 layers with weights.
        classes: of the head.
        width: channels of the first stage; each further stage doubles them.
        channels_in: of the images.

    Raises:
        InputError: for a depth that is not 6 n + 2.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise InputError(f"Expected a depth of 6 n + 2 (8, 14, 20, 32, 44, 56, …); got {depth}.")
    _widths([width], 1)
    return CifarResNet(blocks, classes, width, channels_in)


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, downsample: nn.Module):
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(n, fan_in, h, w) → (n, fan_out, h / stride, w / stride)."""
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(inner + self.downsample(x))


class _Padded(nn.Module):
    """Option A: every ``stride``-th pixel, the new channels zero, half of them before and half after the old ones."""

    def __init__(self, fan_in: int, fan_out: int, stride: int):
        super().__init__()
        self.stride = stride
        self.before = (fan_out - fan_in) // 2
        self.after = fan_out - fan_in - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(n, fan_in, h, w) → (n, fan_out, h / stride, w / stride)."""
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class _Projected(nn.Sequential):
    """Option B: a 1 x 1 convolution with BatchNorm on every ``stride``-th pixel.

    The pixels are taken before the convolution and not by it, which is the same map: oneDNN's strided 1 x 1 kernel writes
    beyond its memory where channels lie last and there are fewer than 8 of them (seen with oneDNN 3.12 on AVX2).
    """

    def __init__(self, fan_in: int, fan_out: int, stride: int):
        super().__init__(nn.Conv2d(fan_in, fan_out, 1, bias=False), nn.BatchNorm2d(fan_out))
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        """(n, fan_in, h, w) → (n, fan_out, h / stride, w / stride)."""
        return super().forward(input[:, :, :: self.stride, :: self.stride])


def _stage(
    fan_in: int, fan_out: int, blocks: int, stride: int, shortcut: Callable[[int, int, int], nn.Module]
) -> nn.Sequential:
    """Blocks of one width; the first one changes the shape where it has to."""
    changes = stride != 1 or fan_in != fan_out
    first = _Block(fan_in, fan_out, stride, shortcut(fan_in, fan_out, stride) if changes else nn.Identity())
    return nn.Sequential(first, *(_Block(fan_out, fan_out, 1, nn.Identity()) for _ in range(blocks - 1)))


def _initialise(model: nn.Module) -> None:
    """He's normal initialisation of convolutions, as both ResNet papers train them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _widths(widths: Sequence[int], count: int) -> list[int]:
    found = [int(width) for width in widths]
    if len(found) != count or min(found) < 1:
        raise InputError(f"Expected {count} width(s) of at least 1; got {list(widths)}.")
    return found


def _sides(size: Size, least: int) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < least:
        raise InputError(f"Expected size as a side or (height, width) of at least {least} pixels; got {size}.")
    return sides[0], sides[1]


def _halved(side: int, times: int) -> int:
    """What ``times`` convolutions of stride 2 leave of ``side``: half, rounded up, each time."""
    return -(-side // 2**times)
