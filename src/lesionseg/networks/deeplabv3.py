"""DeepLabV3 (Chen et al. 2017, arXiv 1706.05587) over a dilated ResNet-50 (He et al. 2016, arXiv
1512.03385)."""

import torch
from torch import Tensor, nn

from lesionseg.networks.bilinear import upsample

EXPANSION = 4  # a bottleneck block's output channels over its inner ones
ATROUS_RATES = (6, 12, 18)


class DeepLabV3(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> logits (B, 1, H, W); H and W multiples of 8.

    The encoder halves the resolution three times and goes on with dilated convolutions (output stride 8): at 256×256
    the pyramid sees a 32×32 map, about the size the paper's rates were chosen on (513×513 at stride 16). Without the
    paper's multi-grid, as torchvision. Base width 64 is ResNet-50 with a pyramid of 256 channels: 39,633,473
    parameters. Trained from scratch like the others: no ImageNet weights, He initialisation.
    """

    def __init__(self, base_width: int = 64):
        super().__init__()
        width = base_width
        self.stem = nn.Sequential(*conv_norm_relu(3, width, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1))
        self.stages = nn.Sequential(
            _stage(width, width, blocks=3, stride=1, dilations=(1, 1)),
            _stage(4 * width, 2 * width, blocks=4, stride=2, dilations=(1, 1)),
            _stage(8 * width, 4 * width, blocks=6, stride=1, dilations=(1, 2)),
            _stage(16 * width, 8 * width, blocks=3, stride=1, dilations=(2, 4)),
        )
        self.pyramid = AtrousPyramid(32 * width, 4 * width)
        self.head = nn.Sequential(*conv_norm_relu(4 * width, 4 * width, 3), nn.Conv2d(4 * width, 1, 1))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.pyramid(self.stages(self.stem(images))))
        return upsample(logits, images.shape[-2:])


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling, ASPP: (B, inputs, H, W) -> (B, width, H, W).

    Five views of the same features side by side: 1×1, three dilated 3×3, and the mean over the image.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.views = nn.ModuleList(
            [nn.Sequential(*conv_norm_relu(inputs, width, 1))]
            + [nn.Sequential(*conv_norm_relu(inputs, width, 3, dilation=rate)) for rate in ATROUS_RATES]
        )
        # No batch norm here, unlike the paper: with one value per channel and image, it would leave nothing in a
        # batch of 1 (torch refuses) and only the sign in a batch of 2.
        self.image_view = nn.Sequential(nn.Conv2d(inputs, width, 1), nn.ReLU(inplace=True))
        self.project = nn.Sequential(*conv_norm_relu(5 * width, width, 1))

    def forward(self, features: Tensor) -> Tensor:
        # mean, not AdaptiveAvgPool2d: that has no deterministic CUDA backward
        image = self.image_view(features.mean((2, 3), keepdim=True))
        views = [view(features) for view in self.views]
        return self.project(torch.cat([*views, image.expand_as(views[0])], dim=1))


class Bottleneck(nn.Module):
    """Residual block 1×1, 3×3, 1×1: (B, inputs, H, W) -> (B, 4·width, H/stride, W/stride)."""

    def __init__(self, inputs: int, width: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        outputs = EXPANSION * width
        narrow = conv_norm_relu(inputs, width, 1)
        look = conv_norm_relu(width, width, 3, stride=stride, dilation=dilation)
        widen, norm, _ = conv_norm_relu(width, outputs, 1)
        self.residual = nn.Sequential(*narrow, *look, widen, norm)
        # The block starts by passing the skip on (Goyal et al. 2017). Without that the gradient grows from block to
        # block, and training from scratch starts badly.
        nn.init.zeros_(norm.weight)
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(*conv_norm_relu(inputs, outputs, 1, stride=stride)[:-1])
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        return self.relu(self.residual(features) + self.skip(features))


def conv_norm_relu(
    inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.ReLU]:
    """Convolution that keeps H and W (divided by `stride`), batch norm, ReLU."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def _stage(inputs: int, width: int, blocks: int, stride: int, dilations: tuple[int, int]) -> nn.Sequential:
    """`blocks` bottlenecks, the first with `stride`; dilations of the first and of the others."""
    first = Bottleneck(inputs, width, stride, dilations[0])
    others = (Bottleneck(EXPANSION * width, width, dilation=dilations[1]) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)


def _initialise(module: nn.Module) -> None:
    """He initialisation."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
