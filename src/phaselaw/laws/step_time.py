"""The step-time model: what a prefill and a decode step take, by batch and length, from whatever a run has varied.

Two phases of each backend and model, in ms, with ``b`` sequences in the batch, each of ``n`` prompt or context tokens
(context: the tokens in the KV cache when a step begins):

- prefill: ``constant + per_sequence b + per_token b n + per_token_pair b n^2``; attention makes the square, the logits
  of each last position the price of a sequence.
- decode step: ``constant + per_sequence b + per_token b n``; weights are read once a step, the cache of each sequence.

Either may instead be interpolated between measured knots (prefill: of ``b n``; decode: of ``b``), since an engine that
changes its kernels with the batch follows no line. Coefficients are never negative, errors are relative, and the form
is the simplest of those that predict left-out points about as well as the best one does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import polars as pl

from phaselaw.laws.regression import Floats

KEYS = ("backend", "backend_kind", "model", "params_millions_effective")

Mode = Literal["prefill", "kv_decode"]

COEFFICIENTS = ("constant_ms", "per_sequence_ms", "per_token_ms", "per_token_pair_ms")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """A predicted time; ``basis`` is ``extrapolated`` beyond the range that the model was fitted in."""

    seconds: float
    basis: Literal["derived", "extrapolated"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PhaseTime:
    """One phase of one model on one backend: a row of ``step_time_model``."""

    mode: Mode
    coefficients: Mapping[str, float]
    """ms, by `COEFFICIENTS`; all of them."""
    knots: tuple[float, ...]
    """Where an interpolated form was measured: batch x tokens (prefill) or batch (decode); empty for other forms."""
    knot_ms: tuple[float, ...]
    batch: tuple[float, float]
    """Smallest and largest batch measured."""
    tokens: tuple[float, float]
    """Smallest and largest number of prompt tokens, or of context tokens that a step began with, measured."""

    def ms(self, batch: Floats | float, tokens: Floats | float) -> Floats:
        """The time by the formula, wherever it is asked, elementwise; never negative."""
        sequences, length = np.asarray(batch, dtype=float), np.asarray(tokens, dtype=float)
        along = sequences * length if self.mode == "prefill" else sequences
        terms = (1.0, sequences, sequences * length, sequences * length**2)
        total = sum(self.coefficients[name] * term for name, term in zip(COEFFICIENTS, terms, strict=True))
        if self.knots:
            total = total + _interpolated(along, np.array(self.knots), np.array(self.knot_ms))
        found: Floats = np.maximum(total, 0.0)
        return found

    def inside(self, batch: float, tokens: float) -> bool:
        """Whether this batch and this length lie in the measured range."""
        slack = 1e-9
        return all(
            low - slack <= value <= high + slack for value, (low, high) in ((batch, self.batch), (tokens, self.tokens))
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StepTimes:
    """Both phases of one model on one backend. Each answer is ``None`` where it was not measured.

    ``extrapolate=True`` answers outside the measured range too, and the answer's ``basis`` says so.
    """

    backend: str
    model: str
    prefill: PhaseTime | None
    decode: PhaseTime | None

    def prefill_s(self, prompt_tokens: float, *, batch: float = 1, extrapolate: bool = False) -> StepTime | None:
        """Seconds of one prefill of ``batch`` prompts, each of so many tokens."""
        return _answer(self.prefill, batch, prompt_tokens, prompt_tokens, extrapolate)

    def decode_step_s(self, batch: float, context_tokens: float, *, extrapolate: bool = False) -> StepTime | None:
        """Seconds of one decode step of ``batch`` sequences that each have so many tokens in the cache."""
        return _answer(self.decode, batch, context_tokens, context_tokens, extrapolate)

    def decode_s(
        self, batch: float, prompt_tokens: float, gen_tokens: float, *, extrapolate: bool = False
    ) -> StepTime | None:
        """Seconds of ``gen_tokens`` decode steps after a prompt: a step is affine in context, so its middle counts."""
        last = prompt_tokens + max(gen_tokens - 1, 0)
        step = _answer(self.decode, batch, prompt_tokens, last, extrapolate)
        return None if step is None else dataclasses.replace(step, seconds=step.seconds * gen_tokens)


def _answer(phase: PhaseTime | None, batch: float, first: float, last: float, extrapolate: bool) -> StepTime | None:
    """The time at the middle of ``first`` to ``last`` tokens, where all of them are measured or may be extrapolated."""
    if phase is None:
        return None
    inside = phase.inside(batch, first) and phase.inside(batch, last)
    if not (inside or extrapolate):
        return None
    seconds = float(phase.ms(batch, (first + last) / 2)) / 1e3
    return StepTime(seconds=seconds, basis="derived" if inside else "extrapolated")


def step_times(table: pl.DataFrame) -> dict[tuple[str, str], StepTimes]:
    """The models of a ``step_time_model`` table (as made, or read back from its CSV), by backend and model."""
    phases: dict[tuple[str, str], dict[str, PhaseTime]] = {}
    for row in table.iter_rows(named=True):
        phases.setdefault((row["backend"], row["model"]), {})[row["mode"]] = _phase(row)
    return {
        (backend, model): StepTimes(
            backend=backend, model=model, prefill=found.get("prefill"), decode=found.get("kv_decode")
        )
        for (backend, model), found in phases.items()
    }


def _phase(row: Mapping[str, Any]) -> PhaseTime:
    return PhaseTime(
        mode=row["mode"],
        coefficients={name: float(row[name] or 0.0) for name in COEFFICIENTS},
        knots=tuple(json.loads(row["knots"] or "[]")),
        knot_ms=tuple(json.loads(row["knot_ms"] or "[]")),
        batch=(float(row["batch_min"]), float(row["batch_max"])),
        tokens=(float(row["tokens_min"]), float(row["tokens_max"])),
    )


def _interpolated(at: Floats, knots: Floats, values: Floats) -> Floats:
    """Linear between knots; beyond them, on along the nearest piece."""
    if len(knots) == 1:
        return np.full_like(at, values[0])
    piece = np.clip(np.searchsorted(knots, at) - 1, 0, len(knots) - 2)
    share = (at - knots[piece]) / (knots[piece + 1] - knots[piece])
    found: Floats = values[piece] + share * (values[piece + 1] - values[piece])
    return found


def step_time_points(rows: pl.DataFrame) -> pl.DataFrame:
    """What the model is fitted to: one row a backend, model, phase, batch and length, with the median ms.

    ``rows`` are measured calls (`phaselaw.laws.summary.usable`, any number of clients). A decode is one point at its
    middle context, or two where the rows tell its halves apart. On a served engine the clients that call at once stand
    for the batch of a decode step, since the server batches them; its prefills are of one client.
    """
    length = pl.coalesce(pl.col("seq_len"), pl.col("prompt_tokens_raw") / pl.col("batch_size"))
    clients = pl.col("concurrency").fill_null(1.0)
    # Names are compared as numbers: a log of a million calls has few of them.
    names = [pl.col(name).cast(pl.Categorical) for name in ("backend", "backend_kind", "model")]
    known = (
        rows.filter(pl.col("mode") != "e2e_kv")
        .with_columns(
            *names,
            length.alias("prompt"),
            pl.coalesce("gen_tokens_raw", pl.col("gen_tokens_target").cast(pl.Float64)).alias("steps"),
            clients.alias("clients"),
        )
        .filter(pl.col("prompt").is_not_null() & pl.col("latency_ms").is_finite() & (pl.col("latency_ms") > 0))
    )
    prefill = known.filter((pl.col("mode") == "prefill") & (pl.col("clients") == 1)).select(
        *KEYS, "mode", pl.col("batch_size").cast(pl.Float64).alias("batch"), pl.col("prompt").alias("tokens"),
        pl.col("latency_ms").alias("ms"), pl.col("prompt").alias("first"), pl.col("prompt").alias("last"),
        pl.col("prompt").alias("fold"),
    )  # fmt: skip
    return (
        pl.concat([prefill, *_decode_points(known)])
        .group_by([*KEYS, "mode", "batch", "tokens"])
        .agg(pl.len().cast(pl.Int64).alias("n"), pl.col("ms").median(), pl.col("first").min(), pl.col("last").max(),
             pl.col("fold").first())
        .with_columns(pl.col("backend", "backend_kind", "model").cast(pl.String))
        .sort([*KEYS, "mode", "batch", "tokens"])
    )  # fmt: skip


def _decode_points(known: pl.DataFrame) -> list[pl.DataFrame]:
    decode = known.filter((pl.col("mode") == "kv_decode") & (pl.col("gen_tokens_target") > 0) & (pl.col("steps") > 0))
    halves = ["decode_first_half_step_ms", "decode_second_half_step_ms"]
    both = pl.all_horizontal(pl.col(name).is_not_null() for name in halves)
    start, steps = pl.col("prompt"), pl.col("steps")

    def points(of: pl.DataFrame, ms: pl.Expr, first: pl.Expr, last: pl.Expr) -> pl.DataFrame:
        return of.select(
            *KEYS, "mode", (pl.col("batch_size") * pl.col("clients")).cast(pl.Float64).alias("batch"),
            ((first + last) / 2).alias("tokens"), ms.alias("ms"), first.alias("first"), last.alias("last"),
            (start + (steps - 1) / 2).alias("fold"),
        )  # fmt: skip

    whole, split = decode.filter(~both), decode.filter(both)
    half = (steps / 2).floor()
    return [
        points(whole, pl.col("latency_ms") / pl.col("gen_tokens_target"), start, start + steps - 1),
        points(split, pl.col(halves[0]), start, start + half - 1),
        points(split, pl.col(halves[1]), start + half, start + steps - 1),
    ]
