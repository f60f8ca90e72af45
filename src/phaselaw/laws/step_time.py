"""The step-time model: what a prefill and a decode step take, by batch and length, from whatever a run has varied.

Two phases of each backend and model, in ms, with ``b`` sequences in the batch, each of ``n`` prompt or context tokens
(context: the tokens in the KV cache when a step begins):

- prefill: ``constant + per_sequence b + per_token b n + per_token_pair b n^2``; attention makes the square, the logits
  of each last position the price of a sequence.
- decode step: ``constant + per_sequence b + per_token b n``; weights are read once a step, the cache of each sequence.

Either may instead be interpolated between measured knots (prefill: of ``b n``; decode: of ``b``), since an engine that
changes its kernels with the batch follows no line. Coefficients are never negative, and errors are relative.

Each form is judged where it had not looked: a value of an axis is left out at a time (all points of batch 4, say),
where it lies between two others, since the model is for prediction between measured values. The ends can't be left out,
and count with their residuals. The simplest form is chosen, unless one with more terms has a smaller error (`AS_GOOD`).
"""

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from phaselaw import tables as col
from phaselaw.laws.regression import Floats
from phaselaw.tables import BACKEND, MODEL, PHASE, Row, Table, grouped

OF_MODEL = (BACKEND, col.words("backend_kind"), MODEL, *col.plain("params_millions_effective"))
KEYS = [column.key for column in OF_MODEL]

Mode = Literal["prefill", "kv_decode"]

COEFFICIENTS = ("constant_ms", "per_sequence_ms", "per_token_ms", "per_token_pair_ms")

AS_GOOD = 0.003
"""A form with more terms is chosen where its root-mean-square relative error is less by more than this."""

FORMS: Mapping[Mode, Mapping[str, str]] = {
    "prefill": {
        "constant": "constant_ms",
        "linear": "constant_ms per_token_ms",
        "quadratic": "constant_ms per_token_ms per_token_pair_ms",
        "linear and batch": "constant_ms per_sequence_ms per_token_ms",
        "quadratic and batch": "constant_ms per_sequence_ms per_token_ms per_token_pair_ms",
        "interpolated": "knots",
        "interpolated and batch": "knots per_sequence_ms",
        "interpolated and quadratic": "knots per_token_pair_ms",
    },
    "kv_decode": {
        "constant": "constant_ms",
        "batch": "constant_ms per_sequence_ms",
        "context": "constant_ms per_token_ms",
        "batch and context": "constant_ms per_sequence_ms per_token_ms",
        "interpolated batch": "knots",
        "interpolated batch and context": "knots per_token_ms",
    },
}
"""The forms of each phase with their terms, the simplest first; ``knots`` are interpolated between."""

STEP_TIME_MODEL = Table(
    name="step_time_model",
    holds="prefill and decode step by batch and length",
    caption="The step-time model: prefill and decode step by batch and length. It is asked only inside its range; "
    "points left out lie between two others.",
    why_empty="no measured prefills or decodes whose prompt tokens are known",
    columns=(
        *(*OF_MODEL, PHASE),
        *(col.words("form", "form"), *col.plain(" ".join(COEFFICIENTS))),
        *(*col.plain("knots knot_ms", pl.String), col.counted("n_points", "points")),
        *(*col.plain("residual_rms residual_max"), col.counted("n_left_out")),
        col.derived("left_out_rms", "off on left-out points (RMS)", col.percent),
        col.derived("left_out_max", "at most", col.percent),
        *col.interval("batch_min", "batch_max", "batch", col.count),
        *col.interval("tokens_min", "tokens_max", "tokens", col.count),
        col.words("batch_basis"),
    ),
)

Points = NDArray[np.void]
_ROUNDS = 4
_MOST = 40
"""Knots that are interpolated between, and values of an axis that are left out in turn: a sweep has fewer, a log of
traffic has thousands, which show a curve without either."""


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
        """The time by the formula, also outside the measured range, elementwise; never negative."""
        sequences, length = np.asarray(batch, dtype=float), np.asarray(tokens, dtype=float)
        total = sum(self.coefficients[name] * term for name, term in _terms(sequences, length).items())
        if self.knots:
            along = sequences * length if self.mode == "prefill" else sequences
            knots, values = np.array(self.knots), np.array(self.knot_ms)
            if len(knots) > 1:  # linear between knots; beyond them, on along the nearest piece
                at = np.clip(np.searchsorted(knots, along) - 1, 0, len(knots) - 2)
                share = (along - knots[at]) / (knots[at + 1] - knots[at])
                values = values[at] + share * (values[at + 1] - values[at])
            total = total + values
        return np.asarray(np.maximum(total, 0.0))

    def inside(self, batch: Floats | float, tokens: Floats | float) -> NDArray[np.bool_]:
        """Whether this batch and this length lie in the measured range, elementwise."""
        (fewest, most), (shortest, longest) = self.batch, self.tokens
        of_batch = (np.asarray(batch) >= fewest - 1e-9) & (np.asarray(batch) <= most + 1e-9)
        return of_batch & (np.asarray(tokens) >= shortest - 1e-9) & (np.asarray(tokens) <= longest + 1e-9)


StepTimes = Mapping[Mode, PhaseTime]
"""The phases of one model on one backend; one that was not measured is absent."""


def step_times(table: pl.DataFrame) -> dict[tuple[str, str], StepTimes]:
    """The models of a ``step_time_model`` table (as made, or read back from its CSV), by backend and model."""
    models: defaultdict[tuple[str, str], dict[Mode, PhaseTime]] = defaultdict(dict)
    for row in table.iter_rows(named=True):
        models[row["backend"], row["model"]][row["mode"]] = PhaseTime(
            mode=row["mode"],
            coefficients={name: float(row[name] or 0.0) for name in COEFFICIENTS},
            knots=tuple(json.loads(row["knots"] or "[]")),
            knot_ms=tuple(json.loads(row["knot_ms"] or "[]")),
            batch=(float(row["batch_min"]), float(row["batch_max"])),
            tokens=(float(row["tokens_min"]), float(row["tokens_max"])),
        )
    return dict(models)


def _terms(batch: Floats, tokens: Floats) -> dict[str, Floats]:
    return dict(zip(COEFFICIENTS, (np.ones_like(batch), batch, batch * tokens, batch * tokens**2), strict=True))


def step_time_points(rows: pl.DataFrame) -> pl.DataFrame:
    """What the model is fitted to: one row a backend, model, phase, batch and length, with the median ms.

    ``rows`` are measured calls (`phaselaw.laws.summary.usable`, any number of clients). A decode is one point at its
    middle context, or two where the rows have its halves apart. On a served engine the clients that call at once stand
    for the batch of a decode step, since the server batches them; its prefills are of one client. ``first`` and
    ``last`` are the tokens that a call began and ended with, ``fold`` the length by which points are left out together.
    """
    prompt, steps, clients = pl.col("prompt"), pl.col("steps"), pl.col("concurrency").fill_null(1.0)
    names = ["backend", "backend_kind", "model"]
    known = (
        rows.filter(pl.col("mode") != "e2e_kv", pl.col("latency_ms").is_finite(), pl.col("latency_ms") > 0)
        .with_columns(
            pl.col(names).cast(pl.Categorical),  # compared as numbers: a log of a million calls has few names
            pl.coalesce(pl.col("seq_len"), pl.col("prompt_tokens_raw") / pl.col("batch_size")).alias("prompt"),
            pl.coalesce("gen_tokens_raw", pl.col("gen_tokens_target").cast(pl.Float64)).alias("steps"),
            (pl.col("batch_size") * clients).cast(pl.Float64).alias("batch"),
        )
        .drop_nulls("prompt")
    )

    def points(of: pl.DataFrame, ms: pl.Expr, first: pl.Expr, last: pl.Expr, fold: pl.Expr) -> pl.DataFrame:
        middle = ((first + last) / 2).alias("tokens")
        return of.select(*KEYS, "mode", "batch", middle, ms=ms, first=first, last=last, fold=fold)

    latency, in_halves = pl.col("latency_ms"), pl.col("decode_first_half_step_ms", "decode_second_half_step_ms")
    both = pl.all_horizontal(in_halves.is_not_null())
    middle, half, last = prompt + (steps - 1) / 2, (steps / 2).floor(), prompt + steps - 1
    decode = known.filter((pl.col("mode") == "kv_decode") & (pl.col("gen_tokens_target") > 0) & (steps > 0))
    halves = decode.filter(both)
    found = [
        points(known.filter((pl.col("mode") == "prefill") & (clients == 1)), latency, prompt, prompt, prompt),
        points(decode.filter(~both), latency / pl.col("gen_tokens_target"), prompt, last, middle),
        points(halves, pl.col("decode_first_half_step_ms"), prompt, prompt + half - 1, middle),
        points(halves, pl.col("decode_second_half_step_ms"), prompt + half, last, middle),
    ]
    figures = (pl.col("ms").median(), pl.col("first").min(), pl.col("last").max())
    # A half of one call may have the middle of another's whole: they are two points.
    keys = [*KEYS, "mode", "batch", "tokens", "fold"]
    medians = pl.concat(found).group_by(keys).agg(pl.len().cast(pl.Int64).alias("n"), *figures)
    return medians.with_columns(pl.col(names).cast(pl.String)).sort(keys)


def step_time_model(points: pl.DataFrame) -> pl.DataFrame:
    """The table ``step_time_model``: a row a backend, model and phase, from `step_time_points`.

    Errors are relative: residuals, and on left-out points. ``tokens_min`` and ``tokens_max`` are of the prompt, or of
    the context a step begins with; an axis that was not varied has a range of one value.
    """
    return STEP_TIME_MODEL.frame(
        about
        | _row(about["mode"], group.to_numpy(structured=True))
        | {"batch_basis": "batch_size" if about["backend_kind"] in ("hf", "simulated") else "clients"}
        for about, group in grouped(points, [*KEYS, "mode"])
    )


def _row(mode: Mode, points: Points) -> Row:
    least = math.inf
    row: Row = {"n_points": len(points), "n_left_out": 0}
    for form, terms in FORMS[mode].items():
        phase = _fit(mode, terms, points)
        off = None if phase is None else _left_out_errors(mode, terms, points)
        if phase is None or off is None:
            continue
        residuals, left_out = _errors(phase, points), off[~np.isnan(off)]
        error = _root_mean_square(np.where(np.isnan(off), residuals, off))
        if error < least - AS_GOOD:
            least, ends = error, ("batch_min", "batch_max", "tokens_min", "tokens_max")
            row = {
                "form": form,
                **phase.coefficients,
                "knots": json.dumps(phase.knots),
                "knot_ms": json.dumps(phase.knot_ms),
                "n_points": len(points),
                "residual_rms": _root_mean_square(residuals),
                "residual_max": float(np.abs(residuals).max()),
                "n_left_out": len(left_out),
                "left_out_rms": _root_mean_square(left_out) if len(left_out) else None,
                "left_out_max": float(np.abs(left_out).max()) if len(left_out) else None,
                **dict(zip(ends, (*phase.batch, *phase.tokens), strict=True)),
            }
    return row


def _fit(mode: Mode, terms: str, points: Points) -> PhaseTime | None:
    """One form fitted to points; ``None`` where they don't determine it."""
    batch, tokens, ms, first, last = (points[name] for name in ("batch", "tokens", "ms", "first", "last"))
    along = batch * tokens if mode == "prefill" else batch
    knots = np.unique(along) if "knots" in terms else np.array([])
    if len(knots) > _MOST:
        return None
    columns = {name: term for name, term in _terms(batch, tokens).items() if name in terms.split()}
    # A constant, and for each piece between knots what rises over it from 0 to 1: with weights >= 0, never falling.
    ramps = [np.ones_like(along)] * bool(len(knots))
    ramps += [np.clip((along - low) / (high - low), 0, 1) for low, high in pairwise(knots)]
    design = np.stack([*ramps, *columns.values()], axis=1)
    scale = np.abs(design).max(axis=0)
    if len(ms) < len(scale) or (scale == 0).any() or np.linalg.matrix_rank(design / scale) < len(scale):
        return None
    solution, *_ = relative_fit(design, ms, least=0.0, floor=1e-3)
    fitted = dict(zip(columns, solution[len(knots) :].tolist(), strict=True))
    return PhaseTime(
        mode=mode,
        coefficients=dict.fromkeys(COEFFICIENTS, 0.0) | fitted,
        knots=tuple(knots.tolist()),
        knot_ms=tuple(np.cumsum(solution[: len(knots)]).tolist()),
        batch=(float(batch.min()), float(batch.max())),
        tokens=(float(first.min()), float(last.max())),
    )


def relative_fit(design: Floats, y: Floats, *, least: float = -np.inf, floor: float) -> tuple[Floats, Floats, Floats]:
    """Least squares of relative errors of ``y`` (n,) on ``design`` (n, k): coefficients (k,), each at least ``least``.

    Each error is relative to the fitted value, in a few rounds that begin with the measured one: relative to the
    measured value alone, noise would pull the fit towards the smallest. A fitted value counts as at least ``floor`` of
    the measured one. Beside the coefficients: the weighed design of the last round, and the fitted values.
    """
    fitted, scale = y, np.abs(design).max(axis=0)
    scaled = design / scale
    for _ in range(_ROUNDS):
        weighted = scaled / fitted[:, None]
        q, r = np.linalg.qr(weighted)  # the same squares in k rows: thousands of points cost no more than a few
        found = lsq_linear(r, q.T @ (y / fitted), (least, np.inf), method="bvls", tol=1e-14, max_iter=10 * len(scale))
        coefficients: Floats = found.x / scale
        fitted = np.maximum(design @ coefficients, floor * y)
    return coefficients, weighted * scale, fitted


def _errors(phase: PhaseTime, points: Points) -> Floats:
    """``predicted / measured - 1`` of each point."""
    return np.asarray(phase.ms(points["batch"], points["tokens"]) / points["ms"] - 1)


def _left_out_errors(mode: Mode, terms: str, points: Points) -> Floats | None:
    """Each point's relative error when it was left out (of several such, the largest), NaN where it never was.

    Left out together are the points of one value of an axis, where that lies between two others. ``None`` where what is
    left does not determine the form.
    """
    errors = np.full(len(points), np.nan)
    for axis in (points["batch"], points["fold"]):
        between = np.unique(axis)[1:-1]
        for value in between[:: max(1, -(-len(between) // _MOST))]:
            out = axis == value
            phase = _fit(mode, terms, points[~out])
            if phase is None:
                return None
            here, before = _errors(phase, points[out]), np.nan_to_num(errors[out])
            errors[out] = np.where(np.abs(here) > np.abs(before), here, before)
    return errors


def _root_mean_square(values: Floats) -> float:
    return math.sqrt(float((values**2).mean()))
