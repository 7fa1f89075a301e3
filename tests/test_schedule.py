"""The learning-rate factor against values worked out by hand."""

import math

import pytest

from lesionseg.common.errors import InputError
from lesionseg.train import schedule


def test_constant_is_one_everywhere():
    factor = schedule.learning_rate_factor("constant", steps=10)
    assert [factor(step) for step in range(10)] == [1.0] * 10


def test_cosine_falls_from_one_to_almost_zero():
    factor = schedule.learning_rate_factor("cosine", steps=4)
    expected = [1.0, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]
    assert [factor(step) for step in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_warm_up_rises_linearly_from_above_zero_to_one(name):
    factor = schedule.learning_rate_factor(name, steps=20, warmup_steps=4)
    assert [factor(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_cosine_after_the_warm_up_takes_the_steps_that_are_left():
    with_warmup, without = schedule.learning_rate_factor("cosine", 30, 10), schedule.learning_rate_factor("cosine", 20)
    assert [with_warmup(10 + step) for step in range(20)] == [without(step) for step in range(20)]


@pytest.mark.parametrize("warmup", [0, 1, 99])
@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_every_step_moves_the_weights(name, warmup):
    factor = schedule.learning_rate_factor(name, 100, warmup)
    assert all(0 < factor(step) <= 1 for step in range(100))


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(InputError, match=r"train\.warmup_epochs: the warm-up takes 10 of 10 steps"):
        schedule.learning_rate_factor("cosine", steps=10, warmup_steps=10)
