"""What breaks first: by rule, from tables whose answer is known."""

import polars as pl
import pytest

from phaselaw.laws.decisions import ALIKE, COLD_START, LATENCY, NEITHER, PRICE, UNKNOWN, what_breaks_first
from phaselaw.laws.warmup import COLD_STARTS

KEYS = {"backend": "b", "backend_kind": "hf", "batch_size": 1, "gen_tokens_target": 64}


def tables(latencies, rates, *, verdict="supported", slope=0.5, warmups=()) -> dict[str, pl.DataFrame]:
    params = [10.0 ** (at + 1) for at in range(len(latencies))]
    models = [
        KEYS | {"mode": "e2e_kv", "model": f"m{at}", "params_millions_effective": size, "latency_geomean_ms": ms,
                "tokens_per_s_geomean": rate}
        for at, (size, ms, rate) in enumerate(zip(params, latencies, rates, strict=True))
    ]  # fmt: skip
    law = KEYS | {"mode": "e2e_kv", "scenario": "__all__", "verdict": verdict, "slope": slope, "slope_t_ci_low": 0.25,
                  "slope_t_ci_high": 0.75}  # fmt: skip
    starts = [
        KEYS | {"mode": "prefill", "coldness": f"kind {at}", "n_calls": 1, "n_unsafe": int(added >= 100),
                "ratio_max": ratio, "added_ms_max": added, "worst_load_ms": 0.0, "smallest_model": f"m{at}",
                "smallest_params_millions": params[at]}
        for at, (ratio, added) in enumerate(warmups)
    ]  # fmt: skip
    old = KEYS | {"mode": "prefill", "ratio_p95": 3.0, "added_ms_p95": 300.0}
    return {
        "requests_by_model": pl.DataFrame(models),
        "scaling_fits": pl.DataFrame([law]),
        "cold_starts": COLD_STARTS.frame(starts),
        "warmup_effect_summary": pl.DataFrame([old]),
    }


def found(analysed: dict[str, pl.DataFrame]) -> pl.DataFrame:
    return what_breaks_first(analysed)


@pytest.mark.parametrize(
    ("latencies", "rates", "first"),
    [
        ((10, 40, 100), (100, 50, 20), LATENCY),  # 10 x against 5 x
        ((10, 20, 50), (100, 50, 5), PRICE),  # 5 x against 20 x
        ((10, 40, 100), (100, 50, 10.2), ALIKE),
    ],
)
def test_what_grows_more_breaks_first(latencies, rates, first: str) -> None:
    [row] = found(tables(latencies, rates)).to_dicts()
    assert (row["first"], row["then"]) == (first, None)
    assert row["latency_factor"] == latencies[-1] / latencies[0]
    assert row["price_factor"] == pytest.approx(rates[0] / rates[-1])


def test_the_growth_by_the_law_has_the_laws_interval() -> None:
    [row] = found(tables((10, 40, 100), (100, 50, 20))).to_dicts()  # over 100 x in parameters
    assert row["law_factor"] == pytest.approx(100**0.5)
    assert (row["law_factor_low"], row["law_factor_high"]) == pytest.approx((100**0.25, 100**0.75))


def test_a_cold_start_comes_before_growth_and_at_the_smallest_model_that_shows_it() -> None:
    [row] = found(tables((10, 40, 100), (100, 50, 20), warmups=((1.1, 5.0), (12.0, 300.0), (9.0, 900.0)))).to_dicts()
    assert (row["first"], row["then"]) == (COLD_START, LATENCY)
    assert (row["cold_model"], row["cold_params_millions"]) == ("m1", 100.0)
    assert (row["cold_ratio_max"], row["cold_added_ms_max"], row["coldness"]) == (12.0, 900.0, "kind 2")
    assert (row["cold_n_unsafe"], row["cold_n_calls"]) == (2, 3)


@pytest.mark.parametrize(("verdict", "slope"), [("not identifiable", 0.1), ("supported", -0.5)])
def test_where_size_decides_nothing_nothing_breaks_with_it(verdict: str, slope: float) -> None:
    [row] = found(tables((10, 90, 12), (100, 11, 80), verdict=verdict, slope=slope)).to_dicts()
    assert row["first"] == NEITHER
    assert (row["slowest_model"], row["fastest_model"], row["slowest_to_fastest"]) == ("m1", "m0", 9.0)


@pytest.mark.parametrize(("latencies", "rates"), [((10,), (100,)), ((10, 40), (100, 50))])
def test_fewer_models_than_a_law_takes_tell_nothing(latencies, rates) -> None:
    [row] = found(tables(latencies, rates, verdict="too few models")).to_dicts()
    assert row["first"] == UNKNOWN
