"""U-Net (Ronneberger, Fischer and Brox 2015, arXiv 1505.04597), with batch norm and padded convolutions."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

LEVELS = 4  # times the resolution is halved, and doubled again

# Adam moves a weight by about the learning rate a step, whatever its size; at 1e-4 the few hundred steps of a short run
# change torch's default weights little. Three things are therefore different from the default.
# A batch norm after a convolution takes its scale away, so that only the direction of the weights counts; the smaller
# they begin, the further a step turns it (van Laarhoven 2017, arXiv 1706.05350). The default falls with the number of
# inputs, and a quarter of it in the deep layers of a wide network would turn too far; hence the smallest deviation.
CONVOLUTION_SCALE = 1 / 4
SMALLEST_DEVIATION = 0.01
# The statistics used outside of training follow the last three or four batches, not the last ten: those of older
# batches are of other weights, and a network that has learnt to find lesions found none in validation.
STATISTICS_MOMENTUM = 0.3
# No batch norm follows the last convolution. It begins with larger weights, as probabilities would stay near one half,
# and with the bias that says how much of a photograph is lesion, before anything is known of it (Lin et al. 2017,
# arXiv 1708.02002, section 3.3).
HEAD_SCALE = 4
LESION_SHARE = 0.2


class DoubleConv(nn.Sequential):
    """Two times 3×3 convolution, batch norm, ReLU: (B, inputs, H, W) -> (B, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),  # the batch norm has the bias
            nn.BatchNorm2d(outputs, momentum=STATISTICS_MOMENTUM),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs, momentum=STATISTICS_MOMENTUM),
            nn.ReLU(inplace=True),
        )
        with torch.no_grad():
            for convolution in (self[0], self[3]):
                weight = convolution.get_parameter("weight")
                # torch's default is uniform up to ± 1 / √inputs: its deviation is 1 / √(3 · inputs)
                weight.mul_(max(CONVOLUTION_SCALE, SMALLEST_DEVIATION * math.sqrt(3 * weight[0].numel())))


class UNet(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> logits (B, 1, H, W); H and W multiples of 16.

    Differs from the paper in what became usual: padded convolutions, so that the output is as large as the
    input, and batch norm. Base width 64 is the paper's: 31,037,633 parameters. Initial weights are torch's
    default, scaled as said above; the bias of the last convolution is the logit of `LESION_SHARE`.
    """

    def __init__(self, base_width: int = 64):
        super().__init__()
        widths = [base_width * 2**level for level in range(LEVELS + 1)]
        self.encoder = nn.ModuleList(
            DoubleConv(inputs, outputs) for inputs, outputs in zip([3, *widths[:-2]], widths[:-1], strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.bottom = DoubleConv(widths[-2], widths[-1])
        upwards = widths[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in pairwise(upwards))
        self.decoder = nn.ModuleList(DoubleConv(2 * width, width) for width in upwards[1:])
        self.head = nn.Conv2d(base_width, 1, 1)
        with torch.no_grad():
            self.head.weight *= HEAD_SCALE
            self.head.get_parameter("bias").fill_(math.log(LESION_SHARE / (1 - LESION_SHARE)))

    def forward(self, images: Tensor) -> Tensor:
        features, skips = images, []
        for block in self.encoder:
            features = block(features)
            skips.append(features)
            features = self.pool(features)
        features = self.bottom(features)
        for up, block, skip in zip(self.up, self.decoder, reversed(skips), strict=True):
            features = block(torch.cat([skip, up(features)], dim=1))
        return self.head(features)
