"""Residual networks: He et al. with batch norm, Big Transfer (BiT), and the stem of a hybrid.

A network is an `nn.Sequential` read top to bottom. `bn` has torchvision's parameter names; `bit` has
timm's, but for `head`, a linear layer where timm has a 1x1 convolution called `head.fc`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrepro.recipe import ResNetSpec

EXPANSION = 4  # a bottleneck's output over its middle

Block = Callable[[int, int, int], nn.Module]  # in_channels, channels of the 3x3 kernel, stride


# --- Weight standardisation and group norm


class StdConv2d(nn.Conv2d):
    """A convolution whose filters are standardised to mean 0 and variance 1. Source: arXiv 1903.10520."""

    def standardised(self) -> Tensor:
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        return (self.weight - mean) * torch.rsqrt(var + 1e-8)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.standardised(), self.bias, self.stride, self.padding)


class StdConv2dSame(StdConv2d):
    """The same, padded as TensorFlow does: the odd row and column at the end."""

    def forward(self, x: Tensor) -> Tensor:
        x = pad_same(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(x, self.standardised(), self.bias, self.stride)


class MaxPool2dSame(nn.Module):
    """A 3x3 maximum with stride 2, of maps that come from a ReLU: zeros as padding then change nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(pad_same(x, 3, 2), 3, stride=2)


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Maps padded with zeros so that a stride gives ceil(size / stride) outputs; the larger half at the end."""

    def sides(size: int) -> tuple[int, int]:
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2

    return F.pad(x, (*sides(x.shape[-1]), *sides(x.shape[-2])))


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(32, channels)


# --- Blocks


class BasicBlock(nn.Module):
    """Two 3x3 kernels. Source: He et al., arXiv 1512.03385."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x))
        return F.relu(x.add_(shortcut), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1; the stride is on the 3x3 kernel, as in torchvision and not as in He et al.

    Args:
        conv: a class of convolutions.
        norm: makes the normalisation of that many channels. The attributes are called `bn*` whatever it is.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        conv: type[nn.Conv2d] = nn.Conv2d,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        out_channels = EXPANSION * channels
        self.conv1 = conv(in_channels, channels, 1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = conv(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.conv3 = conv(channels, out_channels, 1, bias=False)
        self.bn3 = norm(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(conv(in_channels, out_channels, 1, stride, bias=False), norm(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.bn3(self.conv3(x))
        return F.relu(x.add_(shortcut), inplace=True)


def hybrid_bottleneck(in_channels: int, channels: int, stride: int) -> Bottleneck:
    return Bottleneck(in_channels, channels, stride, conv=StdConv2dSame, norm=group_norm)


class PreActBottleneck(nn.Module):
    """A bottleneck normalised before each kernel. Source: BiT, arXiv 1912.11370."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = EXPANSION * channels
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            conv = StdConv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(OrderedDict(conv=conv))
        self.norm1 = group_norm(in_channels)
        self.conv1 = StdConv2d(in_channels, channels, 1, bias=False)
        self.norm2 = group_norm(channels)
        self.conv2 = StdConv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.norm3 = group_norm(channels)
        self.conv3 = StdConv2d(channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x), inplace=True)
        shortcut = x if self.downsample is None else self.downsample(active)
        x = self.conv1(active)
        x = self.conv2(F.relu(self.norm2(x), inplace=True))
        x = self.conv3(F.relu(self.norm3(x), inplace=True))
        return x.add_(shortcut)


# --- Networks


def stage(block: Block, blocks: int, in_channels: int, channels: int, expansion: int, stride: int) -> nn.Sequential:
    """Blocks at one resolution; the first one takes the stride."""
    later = [block(expansion * channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(block(in_channels, channels, stride), *later)


def stages(block: Block, layers: Sequence[int], width: int, expansion: int) -> list[nn.Sequential]:
    """Stage i has width * 2**i channels in its 3x3 kernels; each after the first halves the resolution."""
    made = []
    in_channels = width
    for i, blocks in enumerate(layers):
        channels = width * 2**i
        made.append(stage(block, blocks, in_channels, channels, expansion, stride=1 if i == 0 else 2))
        in_channels = expansion * channels
    return made


def resnet(spec: ResNetSpec, *, channels: int, num_classes: int) -> nn.Sequential:
    """A residual network, images to logits; its last module is the classifier."""
    assert spec.layers is not None
    if spec.style == "bn":
        return _bn(spec, spec.layers, channels, num_classes)
    return _bit(spec, spec.layers, channels, num_classes)


def _bn(spec: ResNetSpec, layers: Sequence[int], channels: int, num_classes: int) -> nn.Sequential:
    block: Block
    block, expansion = (BasicBlock, 1) if spec.block == "basic" else (Bottleneck, EXPANSION)
    kernel, stride = (7, 2) if spec.stem == "imagenet" else (3, 1)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv1"] = nn.Conv2d(channels, spec.width, kernel, stride, padding=kernel // 2, bias=False)
    parts["bn1"] = nn.BatchNorm2d(spec.width)
    parts["relu"] = nn.ReLU(inplace=True)
    if spec.stem == "imagenet":
        parts["maxpool"] = nn.MaxPool2d(3, stride=2, padding=1)
    for i, made in enumerate(stages(block, layers, spec.width, expansion), start=1):
        parts[f"layer{i}"] = made
    parts["avgpool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["fc"] = nn.Linear(expansion * spec.width * 2 ** (len(layers) - 1), num_classes)
    return _initialised(nn.Sequential(parts))


def _bit(spec: ResNetSpec, layers: Sequence[int], channels: int, num_classes: int) -> nn.Sequential:
    kernel, stride = (7, 2) if spec.stem == "imagenet" else (3, 1)
    stem: OrderedDict[str, nn.Module] = OrderedDict()
    stem["conv"] = StdConv2d(channels, spec.width, kernel, stride, padding=kernel // 2, bias=False)
    if spec.stem == "imagenet":
        stem["pad"] = nn.ZeroPad2d(1)  # zeros, not -inf, take part in BiT's maximum
        stem["pool"] = nn.MaxPool2d(3, stride=2)
    body = [nn.Sequential(OrderedDict(blocks=s)) for s in stages(PreActBottleneck, layers, spec.width, EXPANSION)]
    features = EXPANSION * spec.width * 2 ** (len(layers) - 1)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["stem"] = nn.Sequential(stem)
    parts["stages"] = nn.Sequential(*body)
    parts["norm"] = group_norm(features)
    parts["relu"] = nn.ReLU(inplace=True)
    parts["avgpool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["head"] = head = nn.Linear(features, num_classes)
    nn.init.zeros_(head.weight)  # as BiT does; batch-norm networks keep torchvision's random one
    nn.init.zeros_(head.bias)
    return _initialised(nn.Sequential(parts))


def hybrid_stem(layers: Sequence[int], width: int, channels: int) -> tuple[nn.Sequential, int]:
    """The network under a hybrid ViT, images to a feature map, and that map's channels.

    Post-activation bottlenecks with group norm, weight standardisation and TensorFlow's padding, as in
    the authors' code and in timm's `vit_base_r50_s16_*`. The total stride is 2**(stages + 1).

    Source: Section 3.1, hybrid architecture; Appendix B.1.1.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv1"] = StdConv2dSame(channels, width, 7, 2, bias=False)
    parts["bn1"] = group_norm(width)
    parts["relu"] = nn.ReLU(inplace=True)
    parts["maxpool"] = MaxPool2dSame()
    for i, made in enumerate(stages(hybrid_bottleneck, layers, width, EXPANSION), start=1):
        parts[f"layer{i}"] = made
    return _initialised(nn.Sequential(parts)), EXPANSION * width * 2 ** (len(layers) - 1)


def _initialised(model: nn.Sequential) -> nn.Sequential:
    """The model with He-normal kernels, as torchvision and timm start it; the rest is left as it is."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
