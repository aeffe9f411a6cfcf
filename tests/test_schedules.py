"""Gradient clipping and learning-rate schedules."""

import itertools
import math

import numpy as np
import pytest

from cnnlib import optim
from tests.test_optim import each_dtype, parameter, sgd

# ---- clipping


def with_gradients(*gradients, dtype="float64"):
    params = [parameter(np.zeros(len(g)), dtype) for g in gradients]
    for p, g in zip(params, gradients, strict=True):
        p.grad = np.array(g, dtype)
    return params


@each_dtype
def test_the_norm_of_all_gradients_together_is_clipped(dtype):
    params = with_gradients([3.0, 0.0], [0.0, 4.0, 0.0], dtype=dtype)
    params.append(parameter())  # has no gradient
    assert optim.clip_grad_norm_(params, 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose(params[0].grad, [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(params[1].grad, [0.0, 0.8, 0.0], rtol=1e-6)
    assert params[0].grad.dtype == dtype and params[2].grad is None


def test_a_smaller_norm_stays_and_gradients_are_replaced_not_written():
    (p,) = with_gradients([3.0, 4.0])
    g = p.grad
    assert optim.clip_grad_norm_([p], 5.1) == 5.0
    assert p.grad is g
    optim.clip_grad_norm_(iter([p, p]), 1.0)  # a duplicate counts once
    np.testing.assert_array_equal(g, [3.0, 4.0])
    assert np.linalg.norm(p.grad) == pytest.approx(1.0, rel=1e-6)


def test_the_norm_of_huge_gradients_does_not_overflow():
    (p,) = with_gradients([1e30, 1e30], dtype="float32")
    assert optim.clip_grad_norm_([p], 1.0) == pytest.approx(math.sqrt(2) * 1e30)
    np.testing.assert_allclose(p.grad, math.sqrt(0.5), rtol=1e-5)


def test_values_are_clipped():
    (p,) = with_gradients([-3.0, 0.2, 3.0], dtype="float32")
    g = p.grad
    optim.clip_grad_value_([p], 0.5)
    np.testing.assert_array_equal(p.grad, np.array([-0.5, 0.2, 0.5], np.float32))
    np.testing.assert_array_equal(g, np.array([-3.0, 0.2, 3.0], np.float32))


# ---- schedules


def rates(schedule, n):
    found = [schedule.optimizer.lr]
    for _ in range(n - 1):
        schedule.step()
        found.append(schedule.optimizer.lr)
    return found


def test_step_schedule():
    assert rates(optim.StepLR(sgd(lr=0.8), 3, 0.5), 8) == pytest.approx([0.8] * 3 + [0.4] * 3 + [0.2] * 2)


def test_cosine_schedule():
    found = rates(optim.CosineAnnealingLR(sgd(lr=1.0), 10, eta_min=0.2), 11)
    assert found[0] == 1.0 and found[5] == pytest.approx(0.6) and found[10] == pytest.approx(0.2)
    assert all(a > b for a, b in itertools.pairwise(found))


def test_warm_up_alone_and_before_another_schedule():
    assert rates(optim.WarmupLR(sgd(lr=1.0), 4), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    opt = sgd(lr=1.0)
    then = optim.CosineAnnealingLR(opt, 4)
    assert rates(optim.WarmupLR(opt, 2, then), 7) == pytest.approx([0.5, 1.0, *(then.lr_at(i) for i in range(5))])


MAKE = [
    lambda opt: optim.StepLR(opt, 2, 0.5),
    lambda opt: optim.CosineAnnealingLR(opt, 5, 0.01),
    lambda opt: optim.WarmupLR(opt, 3),
    lambda opt: optim.WarmupLR(opt, 3, optim.StepLR(opt, 2, 0.5)),
]


@pytest.mark.parametrize("make", MAKE)
def test_a_resumed_schedule_goes_on_as_it_would_have(make):
    whole = rates(make(sgd(lr=0.3)), 12)
    opt = sgd(lr=0.3)
    schedule = make(opt)
    rates(schedule, 5)
    optimizer_state, schedule_state = opt.state_dict(), schedule.state_dict()
    again = sgd(lr=77.0)
    again.load_state_dict(optimizer_state)
    resumed = make(again)
    resumed.load_state_dict({k: np.asarray(v) for k, v in schedule_state.items()})
    assert rates(resumed, 8) == whole[4:]
