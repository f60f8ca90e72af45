"""Cold starts: process-cold, model-cold and shape-cold calls apart, by the worst event, with the load."""

import polars as pl
import pytest
from rows import phases, run_of, table_of, tables_of

from phaselaw.laws.analysis import Options, analyze
from phaselaw.laws.warmup import cold_starts, event_words, first_calls
from phaselaw.report.front import answer
from phaselaw.report.subject import Subject


def cell(at: int, first_ms: float, warm_ms: float = 4.3, **known) -> list[dict[str, object]]:
    """A cell as TR121 measures it, back to back: a warmup that takes ``first_ms``, and three warm calls."""
    times = (first_ms, warm_ms, warm_ms, warm_ms)
    return [
        row
        for n, ms in enumerate(times)
        for row in phases(ms, 200.0, is_warmup=n == 0, call_idx=4 * at + n, **{"scenario": f"s{at}"} | known)
    ]


def found(rows, **options) -> dict[tuple[str, str], dict[str, object]]:
    table = cold_starts(first_calls(table_of(rows), **{"slo_ms": 100.0} | options))
    return {(row["coldness"], row["mode"]): row for row in table.iter_rows(named=True)}


@pytest.mark.parametrize("others", [0, 14])
def test_one_slow_first_call_is_unsafe_however_many_good_cells_dilute_it(others: int) -> None:
    rows = cell(0, 836.1) + [row for at in range(others) for row in cell(at + 1, 5.0)]
    worst = found(rows)["process-cold", "prefill"]
    assert (worst["n_unsafe"], worst["n_calls"]) == (1, 1)
    assert worst["ratio_max"] == pytest.approx(194.4, abs=0.1)
    assert (worst["worst_scenario"], worst["added_ms_max"]) == ("s0", pytest.approx(831.8))


def test_the_worst_first_call_is_the_unsafe_one_that_adds_most_whatever_its_ratio() -> None:
    since = {"calls_since_model_load": 0, "calls_since_shape_first_seen": 0}
    calls = [
        ("p", 5.0, {}),
        ("small", 200.0, since),
        ("small", 2.0, {}),
        ("large", 1300.0, since),
        ("large", 300.0, {}),
    ]
    rows = [
        row
        for at, (model, ms, known) in enumerate(calls)
        for row in phases(ms, 9.0, model=model, call_idx=at, **dict.fromkeys(since, 9) | known)
    ]
    worst = found(rows)["model-cold", "prefill"]
    assert (worst["n_unsafe"], worst["ratio_max"], worst["added_ms_max"]) == (2, 100.0, 1000.0)
    assert (worst["worst_model"], worst["worst_first_ms"], worst["smallest_model"]) == ("large", 1300.0, "large")
    assert event_words(worst).startswith("model-cold: 4.33 x a warm call (large, s: 1,300 ms for 300 ms)")


def test_a_process_cold_call_stands_apart_from_the_models_and_the_shapes_first() -> None:
    rows = cell(0, 836.1, model="a") + cell(1, 5.0, model="a") + cell(2, 5.0, model="b") + cell(3, 300.0, model="b")
    unsafe = {key[0]: (row["n_unsafe"], row["n_calls"]) for key, row in found(rows).items() if key[1] == "prefill"}
    assert unsafe == {"process-cold": (1, 1), "model-cold": (0, 1), "shape-cold": (1, 2)}


def test_the_columns_of_a_run_of_ours_say_how_cold_a_call_was_whatever_the_order_says() -> None:
    since = {"calls_since_process_start": 9, "calls_since_model_load": 0, "calls_since_shape_first_seen": 0}
    warm = dict.fromkeys(since, 9)
    calls = [(4.0, warm), (4.0, warm), (900.0, since), (4.0, warm)]  # loaded anew in the midst of the run
    rows = [row for at, (ms, known) in enumerate(calls) for row in phases(ms, 200.0, call_idx=at, **known)]
    starts = found(rows)
    assert {key[0] for key in starts} == {"model-cold"}
    assert starts["model-cold", "prefill"]["ratio_max"] == pytest.approx(225.0)


def test_a_load_of_12_s_is_in_what_the_first_user_waits_for() -> None:
    loads = [12_135.0, 218.0, 218.0, 218.0]
    rows = [
        row
        for at, load in enumerate(loads)
        for row in phases(
            48.0 if at else 2228.0, 600.0, backend_kind="ollama", ollama_load_ms=load, is_warmup=at == 0, call_idx=at
        )
    ]
    prefill = found(rows)["process-cold", "prefill"]
    assert prefill["ratio_max"] == pytest.approx((12_135 + 2228) / (218 + 48))
    assert (prefill["worst_load_ms"], prefill["n_unsafe"]) == (12_135.0, 1)
    tables = tables_of(run_of(rows), Options(draws=5))
    [first] = tables["what_breaks_first"].to_dicts()
    assert (first["first"], first["cold_load_ms"]) == ("cold start", 12_135.0)
    regimes = tables["regimes"].filter(pl.col("regime") == "cold start", pl.col("mode") == "prefill")
    assert "12,135 ms of it loading" in regimes["reason"].item()


def test_a_later_call_that_loads_its_model_again_is_model_cold() -> None:
    loads = [3.0, 3.0, 700.0, 3.0]
    rows = [
        row
        for at, load in enumerate(loads)
        for row in phases(50.0, 600.0, backend_kind="ollama", ollama_load_ms=load, is_warmup=at == 0, call_idx=at)
    ]
    again = found(rows)["model-cold", "prefill"]
    assert (again["n_calls"], again["n_unsafe"], again["worst_load_ms"]) == (1, 1, 700.0)


def test_a_study_of_cold_starts_has_its_first_request_against_itself_less_the_load() -> None:
    rows = [
        row
        for at in range(4)
        for row in phases(
            60.0, 512.0, backend_kind="ollama", backend="srv", call_idx=at, ollama_load_ms=500.0, ttft_ms=560.0,
            request_ms=560.0 + 7 * 64, calls_since_model_load=at, calls_since_shape_first_seen=at,
        )
    ]  # fmt: skip
    first = found(rows, always_cold=["srv"])["model-cold", "prefill"]
    assert (first["worst_first_ms"], first["n_unsafe"], first["n_calls"]) == (560.0, 3, 3)
    assert first["ratio_max"] == pytest.approx(560 / 60)
    manifest = {"study": {"backends": [{"name": "srv", "cold": True}]}}
    run = run_of(rows, manifest=manifest)
    analysis = analyze(run, Options(draws=5))
    [row] = analysis.tables["what_breaks_first"].to_dicts()
    assert (row["cold_ratio_max"], row["cold_n_unsafe"]) == (pytest.approx(560 / 60), 4)
    headline = answer(Subject(name="cold", run=run, analysis=analysis, plan=None))
    assert "a study of cold starts: the first token of a request comes after 560 ms (median), 9.33 x" in headline
    assert "500 ms of it loading: 3 of 3 are unsafe" in headline
