"""Times along an axis as lines and a parabola: where batching, context or attention's square begins to matter.

Each is least squares on relative errors over the medians of a model's cells (`phaselaw.laws.step_time`), so that the
scatter about the curve, its lack of fit among it, is what the t intervals stand on. Unlike the step-time model's, the
coefficients may come out negative here: an interval that may not cross zero can't say that nothing was told from it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws.regression import Floats
from phaselaw.laws.step_time import KEYS

TOLD, NOT_TOLD = "told from zero", "not told from zero"

_LINE: dict[str, Any] = {
    "n_values": pl.Int64, "value_first": pl.Float64, "value_last": pl.Float64, "constant_ms": pl.Float64,
    "per_unit_ms": pl.Float64, "per_unit_ci_low": pl.Float64, "per_unit_ci_high": pl.Float64, "growth": pl.String,
    "equal_at": pl.Float64, "equal_at_ci_low": pl.Float64, "equal_at_ci_high": pl.Float64, "residual_rms": pl.Float64,
}  # fmt: skip
_PARABOLA: dict[str, Any] = {
    "n_values": pl.Int64, "value_first": pl.Float64, "value_last": pl.Float64, "constant_ms": pl.Float64,
    "per_token_ms": pl.Float64, "per_pair_ms": pl.Float64, "per_pair_ci_low": pl.Float64,
    "per_pair_ci_high": pl.Float64, "quadratic": pl.String, "quadratic_share_at_last": pl.Float64,
    "half_at_tokens": pl.Float64, "half_at_ci_low": pl.Float64, "half_at_ci_high": pl.Float64,
    "residual_rms": pl.Float64,
}  # fmt: skip


def decode_by_batch(points: pl.DataFrame, *, level: float) -> pl.DataFrame:
    """``decode step = constant + per_unit x batch``, per model and length, where three batch sizes were measured.

    ``equal_at`` is the batch at which the sequences cost as much as the step itself: there a step makes half of the
    tokens/s that the largest batch could.
    """
    return _lines(_whole_calls(points), "batch", ["tokens"], level)


def decode_by_context(points: pl.DataFrame, *, level: float) -> pl.DataFrame:
    """``decode step = constant + per_unit x context tokens``, per model and batch, where three lengths were measured.

    ``equal_at`` is the context at which it costs as much as all the rest of the step.
    """
    decode = points.filter(pl.col("mode") == "kv_decode")
    held = [*KEYS, "batch"]
    whole = _whole_calls(points)
    several = whole.group_by(held).len().filter(pl.col("len") >= 3).drop("len")
    # The halves of a call share its noise, so they are not counted as two where calls of several lengths tell enough.
    best = pl.concat([whole.join(several, on=held), decode.join(several, on=held, how="anti").select(whole.columns)])
    return _lines(best.sort([*held, "tokens"]), "tokens", ["batch"], level)


def _whole_calls(points: pl.DataFrame) -> pl.DataFrame:
    """Decode points with the halves of each call put together at its middle context."""
    return (
        points.filter(pl.col("mode") == "kv_decode")
        .group_by([*KEYS, "mode", "batch", "fold"])
        .agg(pl.col("ms").mean())
        .rename({"fold": "tokens"})
        .sort([*KEYS, "batch", "tokens"])
    )


def _lines(points: pl.DataFrame, axis: str, held: list[str], level: float) -> pl.DataFrame:
    found = []
    for key, group in points.group_by([*KEYS, *held], maintain_order=True):
        x, y = group[axis].to_numpy(), group["ms"].to_numpy()
        if len(np.unique(x)) >= 3:
            found.append(dict(zip([*KEYS, *held], key, strict=True)) | _line(x, y, level))
    return pl.DataFrame(found, schema={name: points.schema[name] for name in [*KEYS, *held]} | _LINE)


def _line(x: Floats, y: Floats, level: float) -> dict[str, Any]:
    (constant, slope), covariance, rms = relative_fit(np.stack([np.ones_like(x), x], axis=1), y)
    quantile = stats.t.ppf(0.5 + level / 2, len(x) - 2)
    half = quantile * math.sqrt(covariance[1, 1])
    low, high = _ratio_interval(constant, slope, covariance, quantile)
    return {
        "n_values": len(np.unique(x)),
        "value_first": x.min(),
        "value_last": x.max(),
        "constant_ms": constant,
        "per_unit_ms": slope,
        "per_unit_ci_low": slope - half,
        "per_unit_ci_high": slope + half,
        "growth": TOLD if abs(slope) > half else NOT_TOLD,
        "equal_at": constant / slope if slope > 0 and constant > 0 else None,
        "equal_at_ci_low": low,
        "equal_at_ci_high": high,
        "residual_rms": rms,
    }


def prefill_by_length(points: pl.DataFrame, *, level: float) -> pl.DataFrame:
    """``prefill = constant + per_token n + per_pair n^2``, per model and batch, where four lengths were measured.

    ``half_at_tokens`` is the length at which the square is half of the whole; its interval holds the other terms fitted
    anew at each end of the square's own, and is open above (empty) where that holds zero.
    """
    found = []
    keys = [*KEYS, "batch"]
    for key, group in points.filter(pl.col("mode") == "prefill").group_by(keys, maintain_order=True):
        n, ms = group["tokens"].to_numpy(), group["ms"].to_numpy()
        if len(n) >= 4:
            found.append(dict(zip(keys, key, strict=True)) | _parabola(n, ms, level))
    return pl.DataFrame(found, schema={name: points.schema[name] for name in keys} | _PARABOLA)


def _parabola(n: Floats, ms: Floats, level: float) -> dict[str, Any]:
    (constant, linear, square), covariance, rms = relative_fit(np.stack([np.ones_like(n), n, n**2], axis=1), ms)
    half = stats.t.ppf(0.5 + level / 2, len(n) - 3) * math.sqrt(covariance[2, 2])
    low, high = square - half, square + half
    last = float(n.max())
    return {
        "n_values": len(n),
        "value_first": n.min(),
        "value_last": last,
        "constant_ms": constant,
        "per_token_ms": linear,
        "per_pair_ms": square,
        "per_pair_ci_low": low,
        "per_pair_ci_high": high,
        "quadratic": TOLD if low > 0 else NOT_TOLD,
        "quadratic_share_at_last": square * last**2 / (constant + linear * last + square * last**2),
        "half_at_tokens": _half_at(constant, linear, square),
        "half_at_ci_low": _half_with(n, ms, high),
        "half_at_ci_high": _half_with(n, ms, low),
        "residual_rms": rms,
    }


def _half_with(n: Floats, ms: Floats, square: float) -> float | None:
    """Where the square is half of the whole, were its coefficient ``square``."""
    if square <= 0:
        return None
    # What the square leaves may be all but nothing at the long end: errors stay relative to what was measured.
    design = np.stack([np.ones_like(n), n], axis=1) / ms[:, None]
    (constant, linear), *_ = np.linalg.lstsq(design, 1 - square * n**2 / ms, rcond=None)
    return _half_at(float(constant), float(linear), square)


def _half_at(constant: float, linear: float, square: float) -> float | None:
    """The n of ``square n^2 = constant + linear n``; ``None`` where there is none."""
    if square <= 0:
        return None
    under_root = linear**2 + 4 * square * constant
    if under_root < 0:
        return None
    found = (linear + math.sqrt(under_root)) / (2 * square)
    return found if found > 0 else None


def relative_fit(design: Floats, y: Floats) -> tuple[Floats, Floats, float]:
    """Coefficients (k,) of ``y`` (n,) on ``design`` (n, k) by relative errors, their covariance (k, k), and the RMS.

    Errors are relative to the fitted value, in a few rounds that begin with ``y`` itself; n > k.
    """
    relative_to = y
    for _ in range(4):
        weighted = design / relative_to[:, None]
        coefficients = np.asarray(np.linalg.lstsq(weighted, y / relative_to, rcond=None)[0], dtype=np.float64)
        relative_to = np.maximum(design @ coefficients, 0.1 * y)
    residuals = (y - design @ coefficients) / relative_to
    degrees = len(y) - design.shape[1]
    covariance: Floats = np.linalg.pinv(weighted.T @ weighted) * float((residuals**2).sum()) / degrees
    return coefficients, covariance, math.sqrt(float((residuals**2).mean()))


def _ratio_interval(a: float, b: float, covariance: Floats, quantile: float) -> tuple[float | None, float | None]:
    """Fieller's interval of a / b; empty where b is not told from zero, so that there is none, and below zero."""
    q2 = quantile**2
    square = b**2 - q2 * covariance[1, 1]
    if square <= 0 or b <= 0:
        return None, None
    middle = a * b - q2 * covariance[0, 1]
    root = math.sqrt(max(middle**2 - square * (a**2 - q2 * covariance[0, 0]), 0.0))
    return max((middle - root) / square, 0.0), max((middle + root) / square, 0.0)
