"""Exponential moving average of a network's weights (Tarvainen and Valpola 2017, arXiv 1703.01780)."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """A second copy of a network that follows the first: average ← decay·average + (1 - decay)·weights.

    Buffers (batch norm's running statistics) are averaged like the weights, so that they belong to the same
    stretch of training; counters are copied. While few steps are done the decay is lower, (1 + t) / (10 +
    t) at step t: else the random start would weigh on a short run. The step is counted in Python, so that
    `update` never waits for the GPU.
    """

    def __init__(self, network: nn.Module, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"decay {decay} is not in [0, 1)")
        self.decay = decay
        self.updates = 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in `network`'s weights: after every optimiser step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages, currents = _floats(self.network), _floats(network)
        torch._foreach_lerp_(averages, currents, 1 - decay)
        for average, current in zip(self.network.buffers(), network.buffers(), strict=True):
            if not average.is_floating_point():
                average.copy_(current)

    def state_dict(self) -> dict:
        """What a checkpoint needs to go on exactly."""
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.updates = state["updates"]
        self.network.load_state_dict(state["network"])


def _floats(network: nn.Module) -> list[Tensor]:
    buffers = (buffer for buffer in network.buffers() if buffer.is_floating_point())
    return [*(parameter.detach() for parameter in network.parameters()), *buffers]
