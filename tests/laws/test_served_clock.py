"""Served engines' clocks: the bias of a server's figures is measured, and both bases of a law stand side by side."""

from typing import Any

import polars as pl
import pytest
from rows import phases, run_of, tables_of

from phaselaw.laws.analysis import Analysis, Context

PARAMS = {"small": 100.0, "middle": 400.0, "large": 1600.0}


def rows(*, steps_missing: int = 1, client: bool = True) -> list[dict[str, Any]]:
    """Calls of 16 to 64 tokens of a server whose decode time spans some steps less than it counts."""
    found: list[dict[str, Any]] = []
    for model, params in PARAMS.items():
        step = params**0.5
        for rep, count in enumerate((16, 32, 64)):
            shared = {
                "backend": "served", "backend_kind": "ollama", "model": model, "params_millions": params,
                "gen_tokens_target": 64, "gen_tokens_raw": count, "rep": rep,
                "prefill_ms": 2 * step, "kv_decode_ms": step * (count - steps_missing),
                "kv_decode_ms_equiv": step * (count - steps_missing) / count * 64, "done_reason": "length",
                "tokens_per_s": 1.0, "cache_check": ("fresh", "found", "undecidable")[rep], "head_cached": "True",
                "decode_step_basis": "client" if client else None,
                "decode_step_ms": step if client else None,
                "decode_step_ms_client": step if client else None,
                "decode_step_ms_server": step * (count - steps_missing) / (count - 1),
            }  # fmt: skip
            found += phases(2 * step, 64 * step, **shared)
    return found


def tables(found: list[dict[str, Any]]) -> Context:
    return tables_of(run_of(found))


def test_a_server_that_spans_one_step_less_is_seen_so() -> None:
    (small, *_) = tables(rows())["server_clock"].iter_rows(named=True)
    assert small["model"] == "small" and small["n"] == 3
    assert small["steps_spanned_minus_count"] == pytest.approx(-1)
    assert small["per_count_bias"] == pytest.approx(-1 / 32)
    assert small["per_step_bias"] == pytest.approx(0)


def test_a_server_that_leaves_more_out_is_seen_so_too() -> None:
    (small, *_) = tables(rows(steps_missing=2))["server_clock"].iter_rows(named=True)
    assert small["steps_spanned_minus_count"] == pytest.approx(-2)
    assert small["per_step_bias"] == pytest.approx(-1 / 31)


@pytest.mark.parametrize("client", [True, False])
def test_both_bases_of_a_law_stand_side_by_side(client: bool) -> None:
    fits = tables(rows(client=client))["scaling_fits_by_basis"].filter(pl.col("mode") == "kv_decode")
    slopes = dict(zip(fits["latency_basis"], fits["slope"], strict=True))
    assert slopes == {"step_true": pytest.approx(0.5), "tr121": pytest.approx(0.5)}
    intercepts = dict(zip(fits["latency_basis"], fits["log10_intercept"], strict=True))
    assert 10 ** intercepts["step_true"] == pytest.approx(64)
    assert 10 ** intercepts["tr121"] == pytest.approx(64 * 31 / 32)


def test_prefill_is_the_same_on_both_bases() -> None:
    fits = tables(rows())["scaling_fits_by_basis"].filter(pl.col("mode") == "prefill")
    assert fits["log10_intercept"].n_unique() == 1


def test_cache_checks_are_counted_by_model() -> None:
    (small, *_) = tables(rows())["prompt_cache_checks"].iter_rows(named=True)
    assert [small[name] for name in ("n", "fresh", "found", "undecidable", "off", "head_cached")] == [3, 1, 1, 1, 0, 3]


def test_a_run_of_engines_in_process_has_neither() -> None:
    plain = [{k: v for k, v in row.items() if "decode_step" not in k and k not in ("cache_check", "done_reason")}
             for row in rows()]  # fmt: skip
    found = tables(plain)
    assert all(found[name].is_empty() for name in ("server_clock", "scaling_fits_by_basis", "prompt_cache_checks"))


def test_tr121s_own_ollama_law_moves_little_with_the_basis(tr121: Analysis) -> None:
    fits = tr121.tables["scaling_fits_by_basis"]
    slopes = fits.filter((pl.col("mode") == "kv_decode") & (pl.col("backend") == "ollama"))
    assert dict(zip(slopes["latency_basis"], slopes["slope"].round(3), strict=True)) == {
        "step_true": 0.646,
        "tr121": 0.649,
    }


def test_the_worst_call_is_told_of_those_that_decode_for_300_ms_or_more() -> None:
    found = rows()
    late = [row | {"decode_step_ms_client": row["decode_step_ms_client"] * 1.25} if row["gen_tokens_raw"] == 16 else
            row | {"decode_step_ms_client": row["decode_step_ms_client"] * 1.01} for row in found]  # fmt: skip
    (small, *_) = tables(late)["server_clock"].iter_rows(named=True)
    assert small["n_long"] == 2, "10 ms a step: 150 ms are short, 310 and 630 are long"
    assert small["per_step_bias_worst"] == pytest.approx(1 - 1 / 1.01)
