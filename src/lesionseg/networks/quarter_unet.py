"""A small residual U-Net that works at a quarter of the resolution and below, made for training on few cores."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCKS = (1, 1, 2, 2)  # residual blocks in each encoder stage
STEM_STRIDE = 4
PRIOR = -1.2  # logit of a share of 0.23, about what lesions cover, so that training does not begin by learning it


class QuarterUNet(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> logits (B, 1, H, W); H and W multiples of 4.

    A U-Net at full resolution spends most of its time on its first and last level, where it sees least. Here two
    convolutions of stride 2 come first, and each pixel of the last level gives the logits of its 4×4 pixels.

    The 3×3 convolutions are full ones. Depthwise-separable ones of base width 32 ran at 57.8 images/s against 32.8 of
    this network (base width 24, two AVX2 cores); what they would cost in accuracy was not measured.
    """

    def __init__(self, base_width: int = 24):
        super().__init__()
        widths = [base_width * 2**stage for stage in range(len(BLOCKS))]
        stem = max(base_width // 2, 1)
        self.stem = nn.Sequential(
            nn.Sequential(*conv_norm_act(3, stem, stride=2)),
            nn.Sequential(*conv_norm_act(stem, base_width, stride=2)),
        )
        self.encoder = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(inputs, outputs, stride=1 if stage == 0 else 2),
                *(ResidualBlock(outputs, outputs) for _ in range(BLOCKS[stage] - 1)),
            )
            for stage, (inputs, outputs) in enumerate(pairwise([base_width, *widths]))
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in pairwise(widths[::-1])
        )
        self.decoder = nn.ModuleList(ResidualBlock(2 * width, width) for width in widths[-2::-1])
        self.head = nn.Conv2d(base_width, STEM_STRIDE**2, 3, padding=1)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        features, skips = self.stem(images), []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        for up, block, skip in zip(self.up, self.decoder, skips[-2::-1], strict=True):
            height, width = skip.shape[-2:]  # an odd side was rounded up on the way down
            features = block(torch.cat([skip, up(features)[..., :height, :width]], dim=1))
        return shuffle(self.head(features))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a skip (as ResNet-D: average pooling, then 1×1).

    (B, inputs, H, W) -> (B, outputs, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Sequential(*conv_norm_act(inputs, outputs, stride)), *conv_norm_act(outputs, outputs)[:-1]
        )
        skip: list[nn.Module] = []
        if stride > 1:
            skip.append(nn.AvgPool2d(stride, ceil_mode=True))
        if inputs != outputs:
            skip += [nn.Conv2d(inputs, outputs, 1, bias=False), BatchNorm(outputs)]
        self.skip = nn.Sequential(*skip)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(self.residual(features) + self.skip(features))


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm2d that takes one value a channel too, as a single image of 32×32 gives at the bottom: it has no
    variance, so the running statistics are used."""

    def forward(self, features: Tensor) -> Tensor:
        if self.training and features.numel() == self.num_features:
            statistics = (self.running_mean, self.running_var)
            return functional.batch_norm(features, *statistics, self.weight, self.bias, eps=self.eps)
        return super().forward(features)


def shuffle(logits: Tensor) -> Tensor:
    """(B, r², h, w) -> (B, 1, r·h, r·w), each pixel's channels as a block of r×r: nn.PixelShuffle, whose gradient for a
    batch of no images (an idle process) has the wrong shape in torch 2.13. Deterministic on CUDA, unlike bilinear."""
    batch, _, height, width = logits.shape
    blocks = logits.unflatten(1, (STEM_STRIDE, STEM_STRIDE)).permute(0, 3, 1, 4, 2)
    return blocks.reshape(batch, 1, STEM_STRIDE * height, STEM_STRIDE * width)


def conv_norm_act(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, nn.Module, nn.Module]:
    """3×3 convolution, batch norm, ReLU."""
    return (
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),  # the batch norm has the bias
        BatchNorm(outputs),
        nn.ReLU(inplace=True),
    )


def _initialise(module: nn.Module) -> None:
    """He et al. 2015 (arXiv 1502.01852) before a batch norm; the head, which alone has a bias, starts at PRIOR."""
    if isinstance(module, nn.Conv2d):
        if module.bias is None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.constant_(module.bias, PRIOR)
