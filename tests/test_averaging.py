"""The average of weights against its recursion written out, and across a checkpoint."""

import copy

import pytest
import torch
from torch import nn

from lesionseg.train.weight_average import weight_average


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))


def take_a_step(trained):
    trained.train()
    trained(torch.rand(2, 3, 8, 8)).square().mean().backward()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter -= 0.5 * parameter.grad
            parameter.grad = None


def test_average_is_the_weighted_sum_of_all_states_before():
    trained = network()
    average = weight_average(trained, decay=0.5)
    states = [copy.deepcopy(trained.state_dict())]
    for _ in range(20):
        take_a_step(trained)
        average.update_parameters(trained)
        states.append(copy.deepcopy(trained.state_dict()))

    # the weight of each state: its share when it came in, times every decay since
    decays = [min(0.5, (1 + step) / (10 + step)) for step in range(1, 21)]
    assert decays[0] == 2 / 11
    assert decays[-1] == 0.5
    shares = [1.0, *(1 - decay for decay in decays)]
    for position in range(len(shares)):
        for decay in decays[position:]:
            shares[position] *= decay
    assert sum(shares) == pytest.approx(1)
    for key, averaged in average.module.state_dict().items():
        if key.endswith("num_batches_tracked"):
            assert averaged == 20
        else:
            expected = sum(share * state[key].double() for share, state in zip(shares, states, strict=True))
            torch.testing.assert_close(averaged.double(), expected, rtol=1e-5, atol=1e-7)


def test_short_runs_do_not_keep_the_random_start():
    """With decay 0.999 alone, 60 % of the average after 500 steps would be the initial weights."""
    trained = nn.Linear(1, 1)
    nn.init.constant_(trained.weight, 1000.0)
    average = weight_average(trained, decay=0.999)
    nn.init.constant_(trained.weight, 1.0)
    for _ in range(500):
        average.update_parameters(trained)
    assert average.module.weight.item() == pytest.approx(1.0, abs=0.01)


def test_average_goes_on_exactly_from_a_checkpoint():
    trained = network()
    straight, before = weight_average(trained, 0.9), weight_average(trained, 0.9)
    resumed = None
    for step in range(6):
        take_a_step(trained)
        straight.update_parameters(trained)
        if step < 3:
            before.update_parameters(trained)
        else:
            if resumed is None:
                resumed = weight_average(network(), 0.9)
                resumed.load_state_dict(copy.deepcopy(before.state_dict()))
            resumed.update_parameters(trained)
    theirs = straight.module.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in resumed.module.state_dict().items())


def test_average_leaves_the_trained_network_alone_and_is_ready_to_evaluate():
    trained = network()
    before = copy.deepcopy(trained.state_dict())
    average = weight_average(trained, 0.9)
    average.update_parameters(trained)
    average.module(torch.rand(1, 3, 8, 8))
    assert all(torch.equal(value, before[key]) for key, value in trained.state_dict().items())
    assert trained.training
    assert not average.module.training
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
