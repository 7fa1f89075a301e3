"""Exponential moving average of a network's weights (Tarvainen and Valpola 2017, arXiv 1703.01780)."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel


def weight_average(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network that follows it: average ← decay·average + (1 - decay)·weights, at each
    `update_parameters(network)`. The copy is the attribute `module`.

    Buffers (batch norm's running statistics) are averaged like the weights, so that they belong to the same
    stretch of training; counters are copied. While few steps are done the decay is lower, (1 + t) / (10 +
    t) at step t: else the random start would weigh on a short run. torch's own function has one decay for all steps.
    """

    @torch.no_grad()
    def update(averages: PARAM_LIST, currents: PARAM_LIST, _: Tensor | int) -> None:
        if averages[0].is_floating_point():
            step = int(average.n_averaged)  # on the CPU; the argument is a copy on the GPU, slow to read
            torch._foreach_lerp_(averages, currents, 1 - min(decay, (1 + step) / (10 + step)))
        else:
            torch._foreach_copy_(averages, currents)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    average.update_parameters(network)  # the first call copies: the average starts at the initial weights
    average.module.eval().requires_grad_(False)
    return average
