"""Rounds, and replicates, that are off as a whole: found, with laws, rates and prices without them beside."""

import math
import random

import pytest
from rows import phases, run_of

from phaselaw.laws.analysis import Analysis, analyze


def analysis(*, slow: set[int], rounds: int = 10, replicates: int = 1, noise: float = 0.02) -> Analysis:
    """Four models, latency the square root of the parameters; rounds (or replicates) that are ``slow`` take 3 x."""
    draw, rows = random.Random(1), []
    for replicate in range(replicates):
        for rep in range(rounds):
            off = 3.0 if (replicate if replicates > 1 else rep) in slow else 1.0
            for model, params in enumerate((10.0, 30.0, 100.0, 300.0)):
                ms = off * params**0.5 * (1 + (off - 1) * 0.1 * model) * math.exp(draw.gauss(0, noise))
                about = {"model": f"m{model}", "params_millions": params, "rep": rep, "replicate": replicate}
                calls = phases(0.1 * ms, 0.9 * ms, **about, gen_tokens_target=16, call_idx=len(rows) // 3)
                rows += [row | {"tokens_per_s": 1e3 / row["latency_ms"]} for row in calls]
    return analyze(run_of(rows, manifest={"order": "rounds"}))


def findings(found: Analysis) -> list[dict]:
    return found.tables["validity_findings"].filter(check="off as a whole").to_dicts()


def test_three_slow_rounds_of_ten_are_found_and_the_law_and_prices_without_them_are_those_of_the_others() -> None:
    found = analysis(slow={0, 1, 2})
    [said] = findings(found)
    assert said["evidence"].startswith("round 0, 1, 2 took") and said["value"] == pytest.approx(3.5, rel=0.2)
    without, quiet = found.tables["laws_without_off_rounds"], analysis(slow=set())
    law = without.filter(figure="exponent", mode="e2e_kv").row(0, named=True)
    assert law["without"] == pytest.approx(0.5, abs=0.02)
    rates = dict(without.filter(figure="tokens/s").select("model", "without").iter_rows())
    assert rates == pytest.approx(
        dict(quiet.tables["throughput_intervals"].filter(mode="e2e_kv").select("model", "tokens_per_s").iter_rows()),
        rel=0.03,
    )
    assert (without.filter(figure="tokens/s")["price_factor"] < 1.0).all()
    assert found.tables["scaling_fits"]["suspect"].str.contains("off as a whole").all()


def test_one_slow_replicate_of_three_is_found_by_its_name() -> None:
    [said] = findings(analysis(slow={1}, rounds=1, replicates=3))
    assert said["evidence"].startswith("replicate 1 took 3.")
    assert " to " not in said["evidence"].partition("times")[0], "one factor is no span"


@pytest.mark.parametrize("rounds", [2, 3, 10])
def test_rounds_that_are_alike_are_not_found(rounds: int) -> None:
    found = analysis(slow=set(), rounds=rounds)
    assert findings(found) == [] and found.tables["laws_without_off_rounds"].is_empty()
