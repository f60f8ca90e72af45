"""A run as it is read for analysis: its rows, its models, its manifest. Ours, TR121's, or a bare ``metrics.csv``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from phaselaw.errors import AnalysisError
from phaselaw.files import FORMULA_STARTS

REQUIRED = ("backend", "backend_kind", "model", "scenario", "mode", "status", "latency_ms")
"""Columns that no analysis can do without, beside one of `PARAMETER_COLUMNS`."""

PARAMETER_COLUMNS = ("params_millions_measured", "params_millions", "params_millions_config")
"""Parameter counts in millions, the most trusted first: what was measured comes before any label."""

SERVED_TEXT = ("decode_step_basis", "cache_check", "head_cached")
"""Columns of served engines; one that a file lacks is empty."""

TEXT = (
    "backend", "backend_kind", "model", "model_kind", "scenario", "mode", "status", "error", "done_reason",
    "ollama_done_reason", "prompt", "call_id", "output_sha256", "is_warmup", *SERVED_TEXT,
)  # fmt: skip
"""Columns read as text, whatever they look like."""

NUMBERS = (
    "latency_ms", "tokens_total", "tokens_per_s", "tokens_total_compute", "tokens_per_s_compute", "prompt_tokens",
    "prompt_tokens_raw", "prompt_tokens_compute", "seq_len", "gen_tokens", "gen_tokens_raw", "gen_tokens_target",
    "prefill_ms", "kv_decode_ms", "decode_step_ms", "decode_step_ms_client", "decode_step_ms_server",
    "kv_decode_ms_equiv", "cuda_event_ms", "gpu_peak_mb", "ollama_load_ms", "batch_size", "rep", *PARAMETER_COLUMNS,
    "concurrency", "achieved_concurrency", "queue_delay_ms", "queue_ms", "sent_at_ms", "ttft_ms", "client_e2e_ms",
    "itl_p50_ms",
)  # fmt: skip
"""Columns the laws read as numbers; one that a file lacks is empty."""

ALIASES = {"prompt_tokens_raw": "prompt_tokens"}
"""A column's name in an early TR121 run."""

_EMPTY = ["", "nan", "NaN"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run, read: ``rows`` one a phase and call, ``models`` one a backend and model."""

    path: Path
    rows: pl.DataFrame
    """`REQUIRED` and `NUMBERS` (floats; batch size and decode budget as integers), ``is_warmup``, ``model_kind`` and
    ``params_millions_effective``; other columns as read."""
    models: pl.DataFrame
    """``resolved_model_params.csv``, empty where the run has none."""
    manifest: dict[str, Any] | None

    @property
    def order(self) -> str:
        """The order its calls were made in: ``rounds`` where its manifest says so, else ``cells`` (TR121's)."""
        return str((self.manifest or {}).get("order", "cells"))


def load(path: Path | str) -> Run:
    """Read a run directory (ours or TR121's) or a ``metrics.csv``.

    Raises `AnalysisError` naming the file where it is absent, no CSV, or lacks a required column.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    metrics = path / "metrics.csv" if path.is_dir() else path
    if not metrics.is_file():
        raise AnalysisError(f"{metrics}: no such file; give a run directory or a metrics.csv")
    models = folder / "resolved_model_params.csv"
    manifest = folder / "manifest.json"
    types: dict[str, Any] = dict.fromkeys(TEXT, pl.String) | dict.fromkeys(NUMBERS, pl.Float64)
    return Run(
        path=path,
        rows=normalised(read_csv(metrics, types), where=str(metrics)),
        models=read_csv(models, {"model": pl.String}) if models.is_file() else pl.DataFrame(),
        manifest=_read_manifest(manifest) if manifest.is_file() else None,
    )


def read_csv(path: Path, types: Mapping[str, Any]) -> pl.DataFrame:
    """A CSV with the types of some columns given and those of others seen; raises `AnalysisError`."""
    try:
        names = pl.read_csv(path, n_rows=0, infer_schema=False).columns
        known = {name: types[name] for name in names if name in types}
        try:
            table = pl.read_csv(path, schema_overrides=known, null_values=_EMPTY, infer_schema_length=1000)
        except pl.exceptions.ComputeError:
            # A column of someone else's whose type shows late in the file: it is text.
            text = dict.fromkeys(names, pl.String) | known
            table = pl.read_csv(path, schema_overrides=text, null_values=_EMPTY)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise AnalysisError(f"{path}: not a table that can be read: {str(error).splitlines()[0]}") from None
    return table.with_columns(_unescaped(table[name]) for name in table.columns if table.schema[name] == pl.String)


def _unescaped(column: pl.Series) -> pl.Series:
    """The texts that `phaselaw.files.cell_text` made cells of."""
    if not column.str.starts_with("'").any():
        return column
    escaped = f"^'[{''.join(FORMULA_STARTS)}']".replace("-", r"\-")
    name = column.name
    return column.to_frame().select(
        pl.when(pl.col(name).str.contains(escaped)).then(pl.col(name).str.slice(1)).otherwise(pl.col(name))
    )[name]


def normalised(rows: pl.DataFrame, *, where: str) -> pl.DataFrame:
    """Rows as `Run.rows` describes them; raises `AnalysisError` naming ``where`` and the columns that it lacks."""
    missing = [name for name in REQUIRED if name not in rows.columns]
    if missing:
        raise AnalysisError(f"{where}: required column(s) missing: {', '.join(missing)}")
    counts = [name for name in PARAMETER_COLUMNS if name in rows.columns]
    if not counts:
        raise AnalysisError(f"{where}: no parameter count: one of {', '.join(PARAMETER_COLUMNS)} is required")
    for name, alias in ALIASES.items():
        if name not in rows.columns and alias in rows.columns:
            rows = rows.with_columns(pl.col(alias).alias(name))
    warmup = pl.col("is_warmup").cast(pl.String).str.to_lowercase().is_in(["true", "1", "1.0"]).fill_null(False)
    kind = pl.col("backend_kind").cast(pl.String)
    rows = rows.with_columns(
        *(pl.col(name).cast(pl.Float64) for name in NUMBERS if name in rows.columns),
        *(pl.lit(None, dtype=pl.Float64).alias(name) for name in NUMBERS if name not in rows.columns),
        *(pl.lit(None, dtype=pl.String).alias(name) for name in SERVED_TEXT if name not in rows.columns),
        warmup if "is_warmup" in rows.columns else pl.lit(False).alias("is_warmup"),
        (pl.col("model_kind").fill_null(kind) if "model_kind" in rows.columns else kind).alias("model_kind"),
    )
    return rows.with_columns(
        pl.col("batch_size").fill_null(1.0).cast(pl.Int64),
        pl.col("gen_tokens_target").cast(pl.Int64),
        pl.coalesce([pl.col(name) for name in counts]).alias("params_millions_effective"),
        pl.col("prompt_tokens_compute").fill_null(pl.col("seq_len") * pl.col("batch_size")),
    ).with_columns(*_compute_counts())


def _compute_counts() -> list[pl.Expr]:
    """Tokens that were computed, padding counted, and their rate, where a file has but the tokens asked for."""
    padding = (pl.col("prompt_tokens_compute") - pl.col("prompt_tokens_raw")).fill_null(0.0)
    decode = pl.col("mode") == "kv_decode"
    total = pl.col("tokens_total") + pl.when(decode).then(0.0).otherwise(padding)
    computed = pl.col("tokens_total_compute").fill_null(total)
    return [computed, pl.col("tokens_per_s_compute").fill_null(computed / (pl.col("latency_ms") / 1000.0))]


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise AnalysisError(f"{path}: not a JSON document that can be read") from None
    if not isinstance(manifest, dict):
        raise AnalysisError(f"{path}: not a manifest")
    return manifest
