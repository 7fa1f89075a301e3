"""The networks, behind one interface.

Each takes images (B, 3, H, W), float, RGB in [0, 1], H and W multiples of 16 from 32 up, and gives logits
(B, 1, H, W): a pixel is lesion with probability sigmoid(logit). In training mode one with deep supervision
gives a list of logits, at full resolution first; `losses.build_loss` takes both.
"""

from collections.abc import Callable

from torch import nn

from lesionseg.common.errors import InputError
from lesionseg.networks.deeplabv3 import DeepLabV3
from lesionseg.networks.ensemble import Ensemble
from lesionseg.networks.nnunet import ResidualEncoderUNet
from lesionseg.networks.quarter_unet import QuarterUNet
from lesionseg.networks.unet import UNet

_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "unet": UNet,
    "deeplabv3": DeepLabV3,
    "nnunet_resenc": ResidualEncoderUNet,
    "quarter_unet": QuarterUNet,
}
NAMES = tuple(_NETWORKS)
# Narrower, torch 2.13 corrupts memory on the CPU: oneDNN's backward pass of a 1×1 convolution of stride 2 with at most
# 8 input channels in channels_last.
NARROWEST = {"deeplabv3": 4}


def build_network(name: str, base_width: int, members: int = 1) -> nn.Module:
    """Return the network `name`, one of NAMES, `base_width` channels wide at its first level; of several `members`,
    the Ensemble of as many such networks.

    Its weights are drawn from torch's global generator: seed that first. Raises InputError for an unknown
    name or a width below 1 (deeplabv3: 4).
    """
    problems = []
    if name not in _NETWORKS:
        problems.append(f"network: found {name!r}, expected one of {', '.join(NAMES)}")
    narrowest = NARROWEST.get(name, 1)
    if base_width < narrowest:
        problems.append(f"base_width: found {base_width}, expected at least {narrowest} for the network {name}")
    if problems:
        raise InputError(problems)
    if members > 1:
        return Ensemble(_NETWORKS[name](base_width) for _ in range(members))
    return _NETWORKS[name](base_width)
