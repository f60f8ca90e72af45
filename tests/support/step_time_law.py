"""A step-time model whose coefficients are known."""

from phaselaw.laws.step_time import COEFFICIENTS, PhaseTime, StepTimes

PREFILL_MS = (2.0, 0.05, 3e-5)
"""constant, a token, a pair of tokens"""
STEP_MS = (7.0, 0.4, 0.002)
"""constant, a sequence, a context token"""


def times(tokens: tuple[float, float] = (1, 4096), batch: tuple[float, float] = (1, 8)) -> StepTimes:
    none = dict.fromkeys(COEFFICIENTS, 0.0)
    constant, per_token, per_pair = PREFILL_MS
    prefill = none | {"constant_ms": constant, "per_token_ms": per_token, "per_token_pair_ms": per_pair}
    fixed, per_sequence, per_context = STEP_MS
    decode = none | {"constant_ms": fixed, "per_sequence_ms": per_sequence, "per_token_ms": per_context}
    shared = {"knots": (), "knot_ms": (), "batch": batch, "tokens": tokens}
    return {
        "prefill": PhaseTime(mode="prefill", coefficients=prefill, **shared),
        "kv_decode": PhaseTime(mode="kv_decode", coefficients=decode, **shared),
    }
