"""Several networks as one."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Ensemble(nn.Module):
    """The mean of its members' probabilities, as logits; used wherever a single network is.

    Each member maps images to logits (B, 1, H, W); so does the ensemble, in float32.
    """

    def __init__(self, members: Iterable[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([member(images).float() for member in self.members])
        # log(p / (1 - p)) of the mean p, from logarithms: exact where a probability rounds to 0 or 1
        return functional.logsigmoid(logits).logsumexp(0) - functional.logsigmoid(-logits).logsumexp(0)
