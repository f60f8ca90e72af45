"""Fitting the step-time model: its forms, non-negative least squares on relative errors, and the choice between them.

Each form is judged by how far it is off where it had not looked: a value of an axis is left out at a time (all points
of batch 4, say), where that lies between two others, since the model is for prediction between measured values. The
ends can't be left out so, and count with their residuals. A form with more terms is
chosen where the root-mean-square relative error is less by more than 0.3 percentage points.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import nnls

from phaselaw.laws.regression import Floats
from phaselaw.laws.step_time import COEFFICIENTS, KEYS, Mode, PhaseTime

AS_GOOD = 0.003
"""A form with more terms is taken where its relative error is less by more than this."""

_ROUNDS = 4

_MOST = 40
"""Knots that are interpolated between, and values of an axis that are left out in turn: a sweep has fewer, a log of
traffic has thousands, which tell a curve without either."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A form: which coefficients it has, and whether it is interpolated."""

    name: str
    coefficients: tuple[str, ...]
    interpolated: bool = False


FORMS: Mapping[Mode, tuple[Form, ...]] = {
    "prefill": (
        Form(name="constant", coefficients=("constant_ms",)),
        Form(name="linear", coefficients=("constant_ms", "per_token_ms")),
        Form(name="quadratic", coefficients=("constant_ms", "per_token_ms", "per_token_pair_ms")),
        Form(name="linear and batch", coefficients=("constant_ms", "per_sequence_ms", "per_token_ms")),
        Form(name="quadratic and batch", coefficients=COEFFICIENTS),
        Form(name="interpolated", coefficients=(), interpolated=True),
        Form(name="interpolated and batch", coefficients=("per_sequence_ms",), interpolated=True),
        Form(name="interpolated and quadratic", coefficients=("per_token_pair_ms",), interpolated=True),
    ),
    "kv_decode": (
        Form(name="constant", coefficients=("constant_ms",)),
        Form(name="batch", coefficients=("constant_ms", "per_sequence_ms")),
        Form(name="context", coefficients=("constant_ms", "per_token_ms")),
        Form(name="batch and context", coefficients=("constant_ms", "per_sequence_ms", "per_token_ms")),
        Form(name="interpolated batch", coefficients=(), interpolated=True),
        Form(name="interpolated batch and context", coefficients=("per_token_ms",), interpolated=True),
    ),
}
"""The forms of each phase, the simplest first."""

SCHEMA: dict[str, Any] = {
    "backend": pl.String, "backend_kind": pl.String, "model": pl.String, "params_millions_effective": pl.Float64,
    "mode": pl.String, "form": pl.String, **dict.fromkeys(COEFFICIENTS, pl.Float64), "knots": pl.String,
    "knot_ms": pl.String, "n_points": pl.Int64, "residual_rms": pl.Float64, "residual_max": pl.Float64,
    "n_left_out": pl.Int64, "left_out_rms": pl.Float64, "left_out_max": pl.Float64,
    "batch_min": pl.Float64, "batch_max": pl.Float64, "tokens_min": pl.Float64, "tokens_max": pl.Float64,
    "batch_basis": pl.String,
}  # fmt: skip


def step_time_model(points: pl.DataFrame) -> pl.DataFrame:
    """``step_time_model``: a row a backend, model and phase, from `phaselaw.laws.step_time.step_time_points`.

    Errors are relative: residuals, and on left-out points. ``tokens_min`` and ``tokens_max`` are of the prompt, or of
    the context a step begins with; an axis that was not varied has a range of one value.
    """
    found = []
    for key, group in points.group_by([*KEYS, "mode"], maintain_order=True):
        about = dict(zip([*KEYS, "mode"], key, strict=True))
        of_batch = "batch_size" if about["backend_kind"] in ("hf", "simulated") else "clients"
        found.append(about | _row(cast(Mode, about["mode"]), group) | {"batch_basis": of_batch})
    return pl.DataFrame(found, schema=SCHEMA)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Points:
    """The points of one phase, each array of shape (points,)."""

    batch: Floats
    tokens: Floats
    ms: Floats
    first: Floats
    last: Floats
    fold: Floats

    @classmethod
    def of(cls, table: pl.DataFrame) -> _Points:
        return cls(**{field.name: table[field.name].to_numpy() for field in dataclasses.fields(cls)})

    def where(self, mask: NDArray[np.bool_]) -> _Points:
        return _Points(**{field.name: getattr(self, field.name)[mask] for field in dataclasses.fields(self)})


def _fit(mode: Mode, form: Form, points: _Points) -> PhaseTime | None:
    """One form fitted to points; ``None`` where they don't determine it."""
    batch, tokens, ms = points.batch, points.tokens, points.ms
    terms = dict(zip(COEFFICIENTS, (np.ones_like(ms), batch, batch * tokens, batch * tokens**2), strict=True))
    along = batch * tokens if mode == "prefill" else batch
    knots = np.unique(along) if form.interpolated else np.array([])
    if len(knots) > _MOST:
        return None
    columns = [*_ramps(along, knots), *(terms[name] for name in form.coefficients)]
    solution = _relative_nnls(np.stack(columns, axis=1), ms)
    if solution is None:
        return None
    fitted = dict(zip(form.coefficients, solution[len(knots) :], strict=True))
    return PhaseTime(
        mode=mode,
        coefficients={name: float(fitted.get(name, 0.0)) for name in COEFFICIENTS},
        knots=tuple(map(float, knots)),
        knot_ms=tuple(map(float, np.cumsum(solution[: len(knots)]))),
        batch=(float(batch.min()), float(batch.max())),
        tokens=(float(points.first.min()), float(points.last.max())),
    )


def _relative_nnls(design: Floats, ms: Floats) -> Floats | None:
    """Non-negative weights of the columns of ``design`` (points, terms); ``None`` where the points don't tell them.

    Each error is taken relative to the fitted value, in a few rounds that begin with the measured one: relative to the
    measured value alone, noise would pull the fit towards the fastest points.
    """
    scale = np.abs(design).max(axis=0)
    if len(ms) < design.shape[1] or (scale == 0).any() or np.linalg.matrix_rank(design / scale) < design.shape[1]:
        return None
    relative_to = ms
    for _ in range(_ROUNDS):
        weights: Floats = nnls(design / scale / relative_to[:, None], ms / relative_to)[0] / scale
        relative_to = np.maximum(design @ weights, 1e-3 * ms)
    return weights


def _ramps(along: Floats, knots: Floats) -> Iterator[Floats]:
    """A constant, and for each piece between knots what rises over it from 0 to 1: with weights >= 0, never falling."""
    if len(knots):
        yield np.ones_like(along)
    for low, high in pairwise(knots):
        yield np.clip((along - low) / (high - low), 0, 1)


def _errors(phase: PhaseTime, points: _Points) -> Floats:
    """``predicted / measured - 1`` of each point."""
    found: Floats = phase.ms(points.batch, points.tokens) / points.ms - 1
    return found


def _left_out_errors(mode: Mode, form: Form, points: _Points) -> Floats | None:
    """Each point's relative error when it was left out (of several such, the largest), NaN where it never was.

    ``None`` where what is left does not determine the form.
    """
    errors = np.full(len(points.ms), np.nan)
    for out in _folds(points):
        phase = _fit(mode, form, points.where(~out))
        if phase is None:
            return None
        here = _errors(phase, points.where(out))
        errors[out] = np.where(np.abs(here) > np.nan_to_num(np.abs(errors[out])), here, np.nan_to_num(errors[out]))
    return errors


def _folds(points: _Points) -> Iterator[NDArray[np.bool_]]:
    """Which points are left out together: those of one value of an axis, where that lies between two others."""
    for axis in (points.batch, points.fold):
        between = np.unique(axis)[1:-1]
        for value in between[:: max(1, -(-len(between) // _MOST))]:
            yield axis == value


def _row(mode: Mode, table: pl.DataFrame) -> dict[str, Any]:
    points = _Points.of(table)
    best: tuple[float, Form, PhaseTime, Floats] | None = None
    for form in FORMS[mode]:
        phase, left_out = _fit(mode, form, points), _left_out_errors(mode, form, points)
        if phase is None or left_out is None:
            continue
        residuals = _errors(phase, points)
        error = _root_mean_square(np.where(np.isnan(left_out), residuals, left_out))
        if best is None or error < best[0] - AS_GOOD:
            best = error, form, phase, left_out
    if best is None:
        return {"form": None, "n_points": len(points.ms), "n_left_out": 0}
    _, form, phase, left_out = best
    residuals, left_out = _errors(phase, points), left_out[~np.isnan(left_out)]
    return {
        "form": form.name,
        **phase.coefficients,
        "knots": json.dumps(phase.knots),
        "knot_ms": json.dumps(phase.knot_ms),
        "n_points": len(points.ms),
        "residual_rms": _root_mean_square(residuals),
        "residual_max": float(np.abs(residuals).max()),
        "n_left_out": len(left_out),
        "left_out_rms": _root_mean_square(left_out) if len(left_out) else None,
        "left_out_max": float(np.abs(left_out).max()) if len(left_out) else None,
        "batch_min": phase.batch[0],
        "batch_max": phase.batch[1],
        "tokens_min": phase.tokens[0],
        "tokens_max": phase.tokens[1],
    }


def _root_mean_square(values: Floats) -> float:
    return math.sqrt(float((values**2).mean()))
