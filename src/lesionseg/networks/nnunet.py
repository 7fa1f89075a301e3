"""The 2-D U-Net of nnU-Net with residual encoder and deep supervision.

Isensee et al. 2021 (nnU-Net, arXiv 1809.10486) and 2024 (its residual encoder presets, arXiv 2404.09556). The
network alone: nnU-Net's own planning, augmentation and schedule are not part of it.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

BLOCKS = (1, 3, 4, 6, 6, 6, 6)  # residual blocks in each encoder stage
WIDEST = 16  # times the base width, the most channels a stage has
NEGATIVE_SLOPE = 0.01  # of the leaky ReLUs


class ResidualEncoderUNet(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> logits (B, 1, H, W), or in training mode a list of logits.

    In training mode the list holds logits at full resolution, half, a quarter and so on, one for each
    decoder stage but the deepest, whose weight in nnU-Net's loss is 0 (see losses.deep_supervision).
    Any H and W; the seven stages are what nnU-Net plans for 256×256 (4×4 at the bottom). Base width 32 is
    nnU-Net's: 105,915,365 parameters.
    """

    def __init__(self, base_width: int = 32):
        super().__init__()
        widths = [base_width * min(2**stage, WIDEST) for stage in range(len(BLOCKS))]
        self.stem = nn.Sequential(*conv_norm_act(3, base_width))
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
        self.decoder = nn.ModuleList(nn.Sequential(*conv_norm_act(2 * width, width)) for width in widths[-2::-1])
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in widths[-3::-1])
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        features, skips = self.stem(images), []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        outputs = []
        for level, (up, block, skip) in enumerate(zip(self.up, self.decoder, skips[-2::-1], strict=True)):
            height, width = skip.shape[-2:]  # an odd side was rounded up on the way down
            features = block(torch.cat([up(features)[..., :height, :width], skip], dim=1))
            if self.training and level > 0:
                outputs.append(self.heads[level - 1](features))
        return outputs[::-1] if self.training else self.heads[-1](features)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a skip (as ResNet-D: average pooling, then 1×1), starting at zero as in nnU-Net.

    (B, inputs, H, W) -> (B, outputs, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        first = conv_norm_act(inputs, outputs, stride)
        convolution, norm, _ = conv_norm_act(outputs, outputs)
        self.residual = nn.Sequential(*first, convolution, norm)
        nn.init.zeros_(norm.weight)  # the block starts by passing the skip on
        skip: list[nn.Module] = []
        if stride > 1:
            skip.append(nn.AvgPool2d(stride, ceil_mode=True))
        if inputs != outputs:
            skip += [nn.Conv2d(inputs, outputs, 1, bias=False), InstanceNorm(outputs, affine=True)]
        self.skip = nn.Sequential(*skip)
        self.activation = nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(self.residual(features) + self.skip(features))


class InstanceNorm(nn.InstanceNorm2d):
    """InstanceNorm2d that takes a 1×1 map too, as inputs under 128×128 give at the bottom: it becomes the bias."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.instance_norm(
            features,
            self.weight,
            self.bias,
            running_mean=None,
            running_var=None,
            use_input_stats=True,
            momentum=0.0,
            eps=self.eps,
            cudnn_enabled=torch.backends.cudnn.enabled,
        )


def conv_norm_act(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Conv2d, InstanceNorm, nn.LeakyReLU]:
    """3×3 convolution, instance norm, leaky ReLU."""
    return (
        nn.Conv2d(inputs, outputs, 3, stride, padding=1),
        InstanceNorm(outputs, affine=True),
        nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
    )


def _initialise(module: nn.Module) -> None:
    """He initialisation, as nnU-Net."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
