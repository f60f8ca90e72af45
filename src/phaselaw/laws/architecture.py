"""What a run's models are made of: layers, width, heads, from the best source at hand (TR121 2.6).

In order: the model's own config, where the run's table names one that is still there; the columns of
``resolved_model_params.csv``; the shipped ladder, where name and measured parameter count match; a table that a person
gives with ``--models-table``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from phaselaw.errors import AnalysisError
from phaselaw.ladder.spec import ladder_model
from phaselaw.records import Run

STRUCTURE = ("n_layer", "n_embd", "n_head", "n_inner", "vocab_size", "n_positions")

CONFIG_NAMES = {
    "n_layer": ("n_layer", "num_hidden_layers"),
    "n_embd": ("n_embd", "hidden_size"),
    "n_head": ("n_head", "num_attention_heads"),
    "n_inner": ("n_inner", "intermediate_size"),
    "vocab_size": ("vocab_size",),
    "n_positions": ("n_positions", "max_position_embeddings"),
    "n_kv_head": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "n_experts": ("num_local_experts", "num_experts", "n_routed_experts"),
}
"""A model config's own names for each, GPT-2's and most others'."""

BITS = {"F32": 32, "F16": 16, "BF16": 16, "Q8": 8.5, "Q6": 6.6, "Q5": 5.6, "Q4": 4.7, "Q3": 3.7, "Q2": 2.8,
        "MXFP4": 4.25, "FP32": 32, "FP16": 16}  # fmt: skip
"""Bits a parameter of number formats and of llama.cpp's quantisations, scales included, by the name's beginning: good
to about 10 %."""

SCHEMA: dict[str, type[pl.DataType]] = {
    "model": pl.String,
    "config_path": pl.String,
    **dict.fromkeys(STRUCTURE, pl.Float64),
    "params_millions_effective": pl.Float64,
    "model_kind": pl.String,
    "source": pl.String,
}


def architectures(run: Run, models_table: Path | None) -> pl.DataFrame:
    """One row a model of the run whose layers are known: `SCHEMA`, ``source`` naming where the row is from."""
    given = _given(models_table)
    resolved = _by_model(run.models)
    found = []
    models = run.rows.select("model", "model_kind", "params_millions_effective").unique().sort(pl.all())
    for name, kind, params in models.iter_rows():
        row = resolved.get((name, kind)) or resolved.get((name, None)) or {}
        structure, source = _structure(name, params, row, given)
        if structure.get("n_layer"):
            found.append(
                {"model": name, "model_kind": kind, "params_millions_effective": params, "source": source}
                | {"config_path": row.get("config_path")}
                | {key: structure.get(key) for key in STRUCTURE}
            )
    return pl.DataFrame(found, schema=SCHEMA).select(list(SCHEMA))


def with_given_sizes(run: Run, models_table: Path | None) -> Run:
    """The run with the ``params`` of a models table (a count) for models that have no parameter count of their own."""
    sizes = {name: _number(row.get("params")) for name, row in _given(models_table).items()}
    known = {name: params / 1e6 for name, params in sizes.items() if params}
    if not known:
        return run
    given = pl.col("model").replace_strict(known, default=None, return_dtype=pl.Float64)
    filled = pl.col("params_millions_effective").fill_null(given)
    return dataclasses.replace(run, rows=run.rows.with_columns(filled))


def bits_of(label: Any) -> float | None:
    """Bits a parameter of a quantisation or number format; ``None`` for one that is not known."""
    said = str(label or "").upper()
    return next((bits for name, bits in BITS.items() if said.startswith(name)), None)


def weight_bytes(run: Run) -> pl.DataFrame:
    """Bytes of weights of each backend's models, as measured, else parameters times the bits of their format.

    Of a model that a table without backends lists in several formats, the format is unknown: a backend has one, so that
    its models' sizes stand in the same proportion by any.
    """
    told: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in run.models.iter_rows(named=True):
        told.setdefault((row.get("backend"), row.get("kind"), row.get("model")), []).append(row)
    found = []
    names = ("backend", "backend_kind", "model", "params_millions_effective")
    for backend, kind, model, params in run.rows.select(names).unique().sort(names).iter_rows():
        rows = told.get((backend, kind, model)) or told.get((None, kind, model)) or []
        measured = {_number(row.get("weights_bytes")) for row in rows}
        bits = {bits_of(row.get("quantization_level") or row.get("dtype")) for row in rows}
        size = measured.pop() if len(measured) == 1 else None
        if size is None and params and rows and None not in bits:
            size = params * 1e6 * min(each for each in bits if each is not None) / 8
        found.append({"backend": backend, "model": model, "params_millions_effective": params, "weights_bytes": size})
    columns = {"backend": pl.String, "model": pl.String, "params_millions_effective": pl.Float64}
    return pl.DataFrame(found, schema=columns | {"weights_bytes": pl.Float64})


def _structure(
    name: str, params: float | None, resolved: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, float | None], str]:
    config = _config(resolved.get("config_path"))
    if config:
        return config, "config"
    if resolved.get("n_layer") is not None:
        return {key: _number(resolved.get(key)) for key in STRUCTURE}, "resolved_model_params.csv"
    ladder = ladder_model(name.replace("\\", "/").rsplit("/", 1)[-1])
    if ladder is not None and params is not None and abs(ladder.params - params * 1e6) < 0.5:
        return {key: _number(getattr(ladder, key)) for key in STRUCTURE}, "shipped ladder"
    if name in given:
        return {key: _number(given[name].get(key)) for key in STRUCTURE}, "models table"
    return {}, ""


def _config(path: str | None) -> dict[str, float | None]:
    """The structure in a config file, empty where it is not at hand or says no layers."""
    if not path:
        return {}
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(config, dict):
        return {}
    found = {
        key: next((_number(config[name]) for name in names if config.get(name) is not None), None)
        for key, names in CONFIG_NAMES.items()
    }
    return found if found["n_layer"] else {}


def _by_model(models: pl.DataFrame) -> dict[tuple[str, str | None], dict[str, Any]]:
    """The run's model table by name and kind; the first row that knows the layers stands for a model."""
    if "model" not in models.columns:
        return {}
    found: dict[tuple[str, str | None], dict[str, Any]] = {}
    for row in models.iter_rows(named=True):
        key = (row["model"], row.get("kind"))
        if key not in found or (found[key].get("n_layer") is None and row.get("n_layer") is not None):
            found[key] = row
    return found


def _given(path: Path | None) -> dict[str, dict[str, Any]]:
    """The ``--models-table``; raises `AnalysisError` where it can't be read or lacks a column."""
    if path is None:
        return {}
    if not path.is_file():
        raise AnalysisError(f"{path}: no such models table")
    try:
        table = pl.read_csv(path, schema_overrides={"model": pl.String}, null_values=["", "nan", "NaN"])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise AnalysisError(f"{path}: not a table that can be read: {str(error).splitlines()[0]}") from None
    missing = [name for name in ("model", "n_layer") if name not in table.columns]
    if missing:
        raise AnalysisError(f"{path}: column(s) missing: {', '.join(missing)}")
    return {row["model"]: row for row in table.iter_rows(named=True)}


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
