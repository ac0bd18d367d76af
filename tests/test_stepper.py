import math

import numpy as np
import pytest

from minifast.stepper import (
    Phases,
    Stepper,
    annealing_cos,
    annealing_exp,
    annealing_linear,
    annealing_no,
    annealing_poly,
)


@pytest.mark.parametrize("func, halfway", [
    (annealing_linear, 6.0), (annealing_cos, 6.0), (annealing_exp, math.sqrt(20)), (annealing_poly(2), 8.0),
])
def test_annealings_run_from_start_to_end(func, halfway):
    assert func(2.0, 10.0, 0.0) == 2.0
    assert func(2.0, 10.0, 1.0) == pytest.approx(10.0, rel=1e-15)
    assert func(2.0, 10.0, 0.5) == pytest.approx(halfway)


def test_annealing_no_stays():
    assert annealing_no(2.0, 10.0, 0.7) == 2.0


def test_a_stepper_is_a_function_of_the_step():
    s = Stepper((0.0, 8.0), 4)
    assert [s(i) for i in range(-1, 7)] == [0.0, 0.0, 2.0, 4.0, 6.0, 8.0, 8.0, 8.0]
    assert s.n == 0                                 # asking changes nothing


def test_one_integer_is_its_state():
    s = Stepper((0.0, 8.0), 4)
    assert [s.step() for _ in range(4)] == [2.0, 4.0, 6.0, 8.0] and s.is_done
    s.n = 1
    assert not s.is_done and s.step() == 4.0


@pytest.mark.parametrize("start, end", [(1 / 3, 0.1), (0.05 / 25, 0.05), (0.95, 0.85)])
@pytest.mark.parametrize("func", [annealing_linear, annealing_cos, annealing_exp])
def test_both_ends_are_exact(start, end, func):
    s = Stepper((start, end), 7, func)
    assert s(0) == start and s(7) == end


def test_one_value_is_constant_or_goes_to_zero():
    assert [Stepper(3, 2)(i) for i in range(4)] == [3, 3, 3, 3]
    assert [Stepper(3, 2, annealing_linear)(i) for i in range(4)] == [3, 1.5, 0, 0]


def test_a_list_is_a_pair_and_ends_may_be_arrays():
    assert Stepper([0, 4], 2)(1) == 2
    per_group = Stepper((np.array([0.0, 2.0]), [4.0, 6.0]), 2)
    assert per_group(1).tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match=r"\(start, end\) or one value, not \[1, 2, 3\]"):
        Stepper([1, 2, 3], 2)


def test_phases_start_at_their_start_and_hold_the_end():
    p = Phases([Stepper((0, 4), 2), Stepper((4, 1), 3)])
    assert [p(i) for i in range(8)] == pytest.approx([0, 2, 4, 3, 2, 1, 1, 1]) and p.n_iter == 5


def test_an_empty_phase_takes_no_step():
    p = Phases([Stepper((0, 4), 0), Stepper((4, 2), 1)])
    assert [p(i) for i in range(3)] == [4, 2, 2]
    assert Phases([Stepper((0, 4), 1), Stepper((4, 2), 0)])(5) == 2
