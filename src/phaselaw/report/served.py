"""Served engines: whose clock their decode is told by, and what the prompt cache answered."""

from __future__ import annotations

from phaselaw.report.columns import count, fixed, interval, number, percent, word
from phaselaw.report.document import Paragraph, Section, Table
from phaselaw.report.subject import Subject


def served_engines(subject: Subject) -> Section | None:
    """The server's figures against the client's clock, the laws by either, cache checks; ``None`` without a server."""
    clock, bases = subject.rows("server_clock"), subject.rows("scaling_fits_by_basis")
    checks = subject.rows("prompt_cache_checks")
    tables = (
        Table(
            caption="A server's decode time against the client's clock.",
            columns=(
                word("backend", "backend"),
                word("model", "model"),
                number("calls", "n", "measured", count),
                number("step by the client (ms)", "decode_step_ms_client_median", "measured"),
                number("step by the server (ms)", "decode_step_ms_server_median", "measured"),
                number("steps spanned less tokens counted", "steps_spanned_minus_count", "derived", _two_places),
                number("time / count is off by", "per_count_bias", "derived", percent),
                number("time / (count - 1) is off by", "per_step_bias", "derived", percent),
                number("TTFT less the server's prefill (ms)", "ttft_minus_prefill_ms", "derived"),
            ),
            rows=clock,
        ),
        Table(
            caption="Exponents by the steps that ran (step_true) and by TR121's projection (tr121).",
            columns=(
                word("backend", "law"),
                word("phase", "phase"),
                word("basis", "latency_basis"),
                number("models", "n_models", "measured", count),
                number("exponent", "slope", "derived", fixed),
                interval("95 % CI", "slope_t_ci_low", "slope_t_ci_high"),
                word("verdict", "verdict"),
            ),
            rows=bases,
        ),
        Table(
            caption="Calls by what is known of the prompt cache.",
            columns=(
                word("backend", "backend"),
                word("model", "model"),
                number("calls", "n", "measured", count),
                number("fresh", "fresh", "measured", count),
                number("answered from the cache", "found", "measured", count),
                number("can't be told", "undecidable", "measured", count),
                number("head cached", "head_cached", "measured", count),
            ),
            rows=checks,
        ),
    )
    filled = tuple(table for table in tables if table.rows)
    if not filled:
        return None
    said = Paragraph(
        "What a server means by its durations differs between versions, so it is measured: decode is told by the "
        "client's clock, with the server's figure beside it (llama.cpp: by its own timings, with the client's clock "
        "beside them). Calls that a prompt cache answered are error rows for "
        "prefill and end to end; where the template's head was cached, a prefill rate per token holds for the rest of "
        "the prompt."
    )
    return Section(title="Served engines", blocks=(said, *filled))


def _two_places(value: float | None) -> str:
    return fixed(value, 2)
