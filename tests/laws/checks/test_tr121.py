"""What TR121's primary run hides is said, and nothing of the kind on its HF rows (skipped where it is not at hand)."""

import polars as pl
import pytest

from phaselaw.laws.analysis import Analysis


def findings(tr121: Analysis, check: str) -> pl.DataFrame:
    return tr121.tables["validity_findings"].filter(pl.col("check") == check)


def test_a_prompt_cache_is_suspected_in_all_15_ollama_cells_and_the_other_reading_is_named(tr121: Analysis) -> None:
    found = findings(tr121, "prompt cache")
    assert found.height == found.select("model", "scenario").n_unique() == 15
    assert found["backend"].unique().to_list() == ["ollama"]
    assert found["status"].unique().to_list() == ["suspected"]
    assert found["other_reading"].null_count() == 0
    assert found["value"].min() == pytest.approx(1.01, abs=0.01)
    assert found["value"].max() == pytest.approx(1.28, abs=0.01)


def test_the_count_convention_is_found_for_two_models_and_no_other(tr121: Analysis) -> None:
    found = findings(tr121, "count convention")
    assert found["status"].unique().to_list() == ["found"]
    assert sorted(found["model"]) == ["llama3.1:8b-instruct-q4_0", "qwen2.5:7b"]


def test_one_model_is_far_off_the_law_in_decode_and_end_to_end(tr121: Analysis) -> None:
    found = findings(tr121, "far off the law")
    assert found.select("backend", "model", "modes").rows() == [
        ("ollama", "gpt-oss-20b:latest", mode) for mode in ("e2e_kv", "kv_decode")
    ]


def test_the_largest_model_hardly_fits_the_memory_that_the_manifest_tells(tr121: Analysis) -> None:
    found = findings(tr121, "spill")
    assert found.select("model", "status").rows() == [("gpt-oss-20b:latest", "suspected")]


def test_the_law_over_four_families_is_called_so(tr121: Analysis) -> None:
    [found] = findings(tr121, "heterogeneous law").to_dicts()
    assert (found["backend"], found["status"]) == ("ollama", "caution")
    assert "4 families" in found["evidence"] and "3 quantisations" in found["evidence"]
    assert "10 to 84 tokens" in found["evidence"]


def test_nothing_but_few_repetitions_is_said_of_the_hf_rows(tr121: Analysis) -> None:
    of_hf = tr121.tables["validity_findings"].filter(pl.col("backend").str.starts_with("hf_"))
    assert set(of_hf["check"]) <= {"too few repetitions"}
    assert set(of_hf["status"]) <= {"caution"}


def test_every_law_on_a_suspect_row_is_marked_and_no_law_of_hf_is(tr121: Analysis) -> None:
    marked = 0
    for name, table in tr121.tables.items():
        if "suspect" not in table.columns or "mode" not in table.columns:
            continue
        of_ollama = table.filter(pl.col("backend") == "ollama", pl.col("mode").is_in(["prefill", "e2e_kv"]))
        assert (table.filter(pl.col("backend").str.starts_with("hf"))["suspect"] == "").all() or name == "claims", name
        assert (of_ollama["suspect"] != "").all(), name
        marked += of_ollama.height
    assert marked > 50


def test_the_laws_name_the_checks_that_speak_against_them(tr121: Analysis) -> None:
    laws = tr121.tables["scaling_fits"].filter(pl.col("backend") == "ollama", pl.col("scenario") == "__all__")
    said = {row["mode"]: row["suspect"] for row in laws.iter_rows(named=True)}
    assert said == {
        "prefill": "prompt cache suspected, spill suspected",
        "kv_decode": "count convention, far off the law, spill suspected",
        "e2e_kv": "prompt cache suspected, count convention, far off the law, spill suspected",
    }
