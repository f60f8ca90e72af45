"""Drift and throttling on rows whose course is known."""

import numpy as np
import pytest
from small_run import call, outcome, run_of

DRIFT, THROTTLING = "drift", "throttling"
rng = np.random.default_rng(5)
NOISE = np.exp(rng.normal(0, 0.01, 200))
PLACES = rng.permutation(18)


def run(order: str, *, drifts: float = 0.0, rises: float = 0.0, steps: float = 0.0):
    """Six models, three scenarios and three repetitions, back to back or in rounds, both in a shuffled order."""
    rows, n = [], 0
    blocks = [(cell, None) for cell in PLACES] if order == "cells" else [
        (cell, rep) for rep in range(3) for cell in np.random.default_rng(rep).permutation(18)
    ]  # fmt: skip
    for cell, round_ in blocks:
        for rep in range(3) if round_ is None else (round_,):
            slower = NOISE[n] * (1 + drifts * n / 53) * (1 + rises * rep) * (1 + steps * (rep == 1))
            model, scenario = divmod(int(cell), 3)
            rows += call(
                n, rep=rep, model=f"m{model}", scenario=f"s{scenario}", backend_kind="hf",
                params_millions_measured=2.0**model, kv_decode_ms=100.0 * 2**model * slower, prefill_ms=0.001,
            )  # fmt: skip
            n += 1
    return run_of(rows)


@pytest.mark.parametrize("order", ["cells", "rounds"])
def test_a_drift_is_found_in_either_order_and_measured(order: str) -> None:
    assert outcome(run(order), DRIFT).findings == ()
    [found] = outcome(run(order, drifts=0.3), DRIFT).findings
    assert found.value == pytest.approx(0.26, abs=0.08)
    assert found.modes == ("prefill", "kv_decode", "e2e_kv")


def test_a_round_that_was_slower_as_a_whole_is_no_drift() -> None:
    assert outcome(run("rounds", steps=0.2), DRIFT).findings == ()


def test_a_small_drift_is_left_alone() -> None:
    assert outcome(run("cells", drifts=0.03), DRIFT).findings == ()


def test_calls_that_slow_down_in_their_cell_throttle_and_ones_that_speed_up_do_not() -> None:
    assert outcome(run("cells", rises=-0.05), THROTTLING).findings == ()
    [found] = outcome(run("cells", rises=0.05), THROTTLING).findings
    assert found.value == pytest.approx(0.1, abs=0.02)


def test_the_order_is_told_by_the_calls_places_not_by_a_manifest() -> None:
    in_rounds = outcome(run("rounds", rises=0.05), THROTTLING)
    assert in_rounds.n_checked == 0
    assert "rounds" in str(in_rounds.not_checked)


def test_rows_without_an_order_are_not_checked() -> None:
    rows = [row | {"call_idx": None} for row in call(0) + call(1)]
    assert outcome(run_of(rows), DRIFT).not_checked
    assert outcome(run_of(rows), THROTTLING).not_checked
