"""Times along an axis as lines and a parabola: where batching, context or attention's square begins to matter.

Each is least squares on relative errors over the medians of a model's cells (`phaselaw.laws.step_time`). The t
intervals come from the scatter about the curve, its lack of fit included. Unlike the step-time model's, coefficients
may be negative: an interval that could not cross zero could not show that a coefficient may be zero.
"""

import math
from collections.abc import Iterator

import numpy as np
import polars as pl
from scipy import special

from phaselaw import tables as col
from phaselaw.laws.regression import Floats, ends
from phaselaw.laws.step_time import KEYS, OF_MODEL, relative_fit
from phaselaw.tables import Row, Table, grouped

NOT_ZERO, MAY_BE_ZERO = "not zero", "may be zero"


_VALUES = (col.counted("n_values"), *col.plain("value_first value_last"))

DECODE_BY_BATCH = Table(
    name="decode_by_batch",
    holds="decode step against batch size",
    why_empty="fewer than three batch sizes at one length (phaselaw sweep --axis batch_size=1,2,4,8)",
    columns=(
        *(*OF_MODEL, col.measured("tokens", "context (tokens)", col.count), *_VALUES),
        col.derived("constant_ms", "step (ms)"),
        col.derived("per_unit_ms", "and for each sequence (ms)"),
        *col.interval("per_unit_ci_low", "per_unit_ci_high", "95 % CI", col.digits),
        col.words("growth"),
        col.derived("equal_at", "half of the largest rate at batch"),
        *col.interval("equal_at_ci_low", "equal_at_ci_high", "95 % CI", col.digits),
        *col.plain("residual_rms"),
    ),
)
DECODE_BY_CONTEXT = Table(
    name="decode_by_context",
    holds="decode step against context length",
    why_empty="fewer than three context lengths at one batch size",
    columns=(
        *(*OF_MODEL, col.measured("batch", "batch", col.count), *_VALUES),
        col.derived("constant_ms", "step without context (ms)"),
        col.derived("per_unit_ms", "ms for 1,000 tokens", lambda ms: col.digits(1e3 * ms)),
        *col.plain("per_unit_ci_low per_unit_ci_high"),
        col.words("growth", "growth is"),
        col.derived("equal_at", "as much as all else at (tokens)"),
        *col.interval("equal_at_ci_low", "equal_at_ci_high", "95 % CI", col.digits),
        *col.plain("residual_rms"),
    ),
)
PREFILL_BY_LENGTH = Table(
    name="prefill_by_length",
    holds="prefill against prompt length: attention's square",
    why_empty="fewer than four prompt lengths at one batch size (phaselaw sweep --axis prompt_tokens=...)",
    columns=(
        *(*OF_MODEL, col.measured("batch", "batch", col.count), *_VALUES, *col.plain("constant_ms")),
        col.derived("per_token_ms", "ms for each token"),
        col.derived("per_pair_ms", "ms for each pair"),
        *col.interval("per_pair_ci_low", "per_pair_ci_high", "95 % CI", col.digits),
        col.words("quadratic", "the square is"),
        col.derived("quadratic_share_at_last", "its share at the longest", col.percent),
        col.derived("half_at_tokens", "half of the prefill at (tokens)"),
        *col.interval("half_at_ci_low", "half_at_ci_high", "95 % CI", col.digits),
        *col.plain("residual_rms"),
    ),
)


def decode_by_batch(points: pl.DataFrame, level: float) -> pl.DataFrame:
    """``decode step = constant + per_unit x batch``, per model and length, where three batch sizes were measured.

    ``equal_at`` is the batch at which the sequences cost as much as the step itself: there a step makes half of the
    tokens/s that the largest batch could.
    """
    return DECODE_BY_BATCH.frame(_lines(_one_a_call(points), "batch", "tokens", level))


def decode_by_context(points: pl.DataFrame, level: float) -> pl.DataFrame:
    """``decode step = constant + per_unit x context tokens``, per model and batch, where three lengths were measured.

    ``equal_at`` is the context at which it costs as much as all the rest of the step.
    """
    held = [*KEYS, "batch"]
    calls = _one_a_call(points)
    several = calls.group_by(held).len().filter(pl.col("len") >= 3)
    halves = points.filter(pl.col("mode") == "kv_decode").join(several, on=held, how="anti")
    # The halves of a call share its noise, so they count as two only where there are too few lengths of calls.
    best = pl.concat([calls.join(several, on=held, how="semi"), halves.select(calls.columns)])
    return DECODE_BY_CONTEXT.frame(_lines(best.sort([*held, "tokens"]), "tokens", "batch", level))


def prefill_by_length(points: pl.DataFrame, level: float) -> pl.DataFrame:
    """``prefill = constant + per_token n + per_pair n^2``, per model and batch, where four lengths were measured.

    ``half_at_tokens`` is the length at which the square is half of the prefill; its interval comes from fitting the
    other terms again with the square at each end of its own interval, and is open above (empty) where that holds zero.
    """
    rows = []
    for about, group in grouped(points.filter(pl.col("mode") == "prefill"), [*KEYS, "batch"]):
        n, ms = group["tokens"].to_numpy(), group["ms"].to_numpy()
        if len(n) < 4:
            continue
        figures, (constant, linear, square), spread = _polynomial(n, ms, 2, level)
        half, last = math.sqrt(spread[2, 2]), float(n.max())
        about |= figures | {
            "per_token_ms": linear,
            "per_pair_ms": square,
            **ends("per_pair_ci", square, half),
            "quadratic": NOT_ZERO if square > half else MAY_BE_ZERO,
            "quadratic_share_at_last": square * last**2 / (constant + linear * last + square * last**2),
            "half_at_tokens": _half_at(constant, linear, square),
            "half_at_ci_low": _half_with(n, ms, square + half),
            "half_at_ci_high": _half_with(n, ms, square - half),
        }
        rows.append(about)
    return PREFILL_BY_LENGTH.frame(rows)


def _one_a_call(points: pl.DataFrame) -> pl.DataFrame:
    """Decode points with the halves of each call put together at its middle context."""
    keys = [*KEYS, "mode", "batch"]
    decode = points.filter(pl.col("mode") == "kv_decode").group_by([*keys, "fold"]).agg(pl.col("ms").mean())
    return decode.rename({"fold": "tokens"}).sort([*KEYS, "batch", "tokens"])


def _lines(points: pl.DataFrame, axis: str, held: str, level: float) -> Iterator[Row]:
    """A row for each line in ``axis``, of the points that are alike in ``held``."""
    for about, group in grouped(points, [*KEYS, held]):
        if group[axis].n_unique() < 3:
            continue
        figures, (constant, slope), spread = _polynomial(group[axis].to_numpy(), group["ms"].to_numpy(), 1, level)
        half, (low, high) = math.sqrt(spread[1, 1]), _ratio_interval(constant, slope, spread)
        figures |= ends("per_unit_ci", slope, half) | {
            "per_unit_ms": slope,
            "growth": NOT_ZERO if abs(slope) > half else MAY_BE_ZERO,
            "equal_at": constant / slope if slope > 0 and constant > 0 else None,
            "equal_at_ci_low": low,
            "equal_at_ci_high": high,
        }
        yield about | figures


def _polynomial(x: Floats, y: Floats, degree: int, level: float) -> tuple[Row, Floats, Floats]:
    """The fit of ``y`` on powers of ``x``: figures, coefficients (k,), and their covariance by t squared (k, k)."""
    design = np.vander(x, degree + 1, increasing=True)
    coefficients, weighted, fitted = relative_fit(design, y, floor=0.1)
    squares, freedom = ((y - design @ coefficients) / fitted) ** 2, len(y) - degree - 1
    covariance = np.linalg.pinv(weighted.T @ weighted) * float(squares.sum()) / freedom
    spread: Floats = covariance * float(special.stdtrit(freedom, 0.5 + level / 2)) ** 2
    ends = {"n_values": len(np.unique(x)), "value_first": x.min(), "value_last": x.max()}
    figures = ends | {"constant_ms": coefficients[0], "residual_rms": math.sqrt(float(squares.mean()))}
    return figures, coefficients, spread


def _half_with(n: Floats, ms: Floats, square: float) -> float | None:
    """Where the square is half of the prefill, were its coefficient ``square``."""
    if square <= 0:
        return None
    # What the square leaves may be next to nothing at the long end: errors stay relative to what was measured.
    design = np.vander(n, 2, increasing=True) / ms[:, None]
    constant, linear = np.linalg.lstsq(design, 1 - square * n**2 / ms, rcond=None)[0]
    return _half_at(float(constant), float(linear), square)


def _half_at(constant: float, linear: float, square: float) -> float | None:
    """The n of ``square n^2 = constant + linear n``; ``None`` where there is none."""
    under_root = linear**2 + 4 * square * constant
    found = (linear + math.sqrt(under_root)) / (2 * square) if square > 0 and under_root >= 0 else 0.0
    return found if found > 0 else None


def _ratio_interval(a: float, b: float, spread: Floats) -> tuple[float | None, float | None]:
    """Fieller's interval of a / b, at least 0, by their covariance times t squared; empty where b may be 0 or less."""
    square = b**2 - spread[1, 1]
    if square <= 0 or b <= 0:
        return None, None
    middle = a * b - spread[0, 1]
    root = math.sqrt(max(middle**2 - square * (a**2 - spread[0, 0]), 0.0))
    return max((middle - root) / square, 0.0), max((middle + root) / square, 0.0)
