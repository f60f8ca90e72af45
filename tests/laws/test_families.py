"""The laws of one family beside the law over all of them."""

import polars as pl
import pytest
from rows import call, run_of, tables_of

from phaselaw.laws.analysis import Options

LAWS = {"a": 0.9, "b": 0.2}


def analysed(families: dict[str, int]) -> pl.DataFrame:
    rows, models = [], []
    for family, n in families.items():
        for at in range(n):
            params = 10.0 * 4**at
            name = f"{family}{at}"
            models.append({"model": name, "kind": "ollama", "family": family})
            ms = 10 * params ** LAWS[family]
            rows += [row for rep in range(2) for row in call(rep, model=name, params_millions_measured=params,
                     kv_decode_ms=ms, prefill_ms=ms / 50)]  # fmt: skip
    return tables_of(run_of(rows, models), Options(draws=10))["scaling_fits_by_family"]


def test_each_family_of_three_models_has_its_own_law() -> None:
    laws = analysed({"a": 3, "b": 4}).filter(pl.col("mode") == "kv_decode")
    assert {row["family"]: (row["slope"], row["n_models"]) for row in laws.iter_rows(named=True)} == {
        "a": (pytest.approx(0.9), 3), "b": (pytest.approx(0.2), 4),
    }  # fmt: skip


def test_a_family_of_two_models_has_none_and_one_family_alone_needs_none() -> None:
    assert analysed({"a": 3, "b": 2})["family"].unique().to_list() == ["a"]
    assert analysed({"a": 4}).is_empty()
