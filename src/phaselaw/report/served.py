"""Served engines: whose clock their decode is told by, and what the prompt cache answered."""

from __future__ import annotations

from phaselaw.report.columns import count, digits, doubted, fixed, interval, number, percent, word
from phaselaw.report.document import Paragraph, Section, Table
from phaselaw.report.subject import Subject


def served_engines(subject: Subject) -> Section | None:
    """The server's figures against the client's clock, the laws by either, cache checks; ``None`` without a server."""
    tables = (_clocks, _exponents_by_basis, _linearity, _projection_errors, _cache_checks)
    filled = tuple(table for each in tables if (table := each(subject)).rows)
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


def _clocks(subject: Subject) -> Table:
    rows = subject.rows("server_clock")
    return Table(
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
            number("calls of 300 ms or more", "n_long", "measured", count),
            number("the worst of these is off by", "per_step_bias_worst", "derived", _two_percent),
            number("TTFT less the server's prefill (ms)", "ttft_minus_prefill_ms", "derived"),
        ),
        rows=rows,
    )


def _exponents_by_basis(subject: Subject) -> Table:
    rows = subject.ordered("scaling_fits_by_basis")
    return Table(
        caption="Exponents by the steps that ran (step_true) and by TR121's projection (tr121).",
        columns=(
            word("backend", "law"),
            word("phase", "phase"),
            word("basis", "latency_basis"),
            number("models", "n_models", "measured", count),
            number("exponent", "slope", "derived", fixed),
            interval("interval", "slope_t_ci_low", "slope_t_ci_high"),
            word("verdict", "verdict"),
            *doubted(rows),
        ),
        rows=rows,
    )


def _linearity(subject: Subject) -> Table:
    rows = subject.ordered("ollama_decode_linearity")
    return Table(
        caption="Is decode time linear in tokens? decode ms = a + b x count, of each model.",
        columns=(
            word("backend", "law"),
            word("model", "model"),
            number("calls", "n", "measured", count),
            number("fewest tokens", "gen_tokens_raw_min", "measured", count),
            number("most tokens", "gen_tokens_raw_max", "measured", count),
            number("a (ms)", "a_ms", "derived", _two_places),
            number("b (ms a token)", "b_ms_per_token", "derived"),
            number("R2", "r2", "derived", fixed),
            *doubted(rows),
        ),
        rows=rows,
    )


def _projection_errors(subject: Subject) -> Table:
    rows = subject.ordered("ollama_decode_projection_error")
    return Table(
        caption="What scaling to the tokens asked for errs by: proportional less a + b x count, at that many.",
        columns=(
            word("backend", "law"),
            word("model", "model"),
            number("calls", "n", "measured", count),
            number("tokens asked", "gen_tokens_target", "assumed", count),
            number("median (ms)", "prop_minus_affine_ms_median", "derived"),
            number("p95 (ms)", "prop_minus_affine_ms_p95", "derived"),
            number("least (ms)", "prop_minus_affine_ms_min", "derived"),
            number("most (ms)", "prop_minus_affine_ms_max", "derived"),
            *doubted(rows),
        ),
        rows=rows,
    )


def _cache_checks(subject: Subject) -> Table:
    rows = subject.rows("prompt_cache_checks")
    return Table(
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
        rows=rows,
    )


def device_clock(subject: Subject) -> Section | None:
    """The device's own clock against the wall's, on CUDA; ``None`` where there are no event times (TR121 2.2.1)."""
    rows = tuple(
        row | {"calls": "warmup" if row["is_warmup"] else "measured"}
        for row in subject.ordered("cuda_event_gap_summary")
    )
    if not rows:
        return None
    columns = (
        word("backend", "law"),
        word("phase", "phase"),
        word("calls", "calls"),
        number("rows", "n", "measured", count),
        number("gap, median", "rel_gap_median", "derived", _small_percent),
        number("gap, p95", "rel_gap_p95", "derived", _small_percent),
        number("gap, median (ms)", "abs_gap_ms_median", "derived"),
        number("gap, p95 (ms)", "abs_gap_ms_p95", "derived"),
    )
    said = Paragraph(
        "CUDA events time the device alone. Where the wall clock agrees, the timed region holds no host work after the "
        "last kernel; it does not show that the device was busy all the while."
    )
    table = Table(
        caption="Wall clock less CUDA events, as a share of the wall clock and in ms.", columns=columns, rows=rows
    )
    return Section(title="Device clock", blocks=(said, table))


def _small_percent(value: float | None) -> str:
    return percent(None) if value is None else f"{digits(100 * value)} %"


def concurrency(subject: Subject) -> Section | None:
    """Throughput against clients and the laws it follows; ``None`` without a sweep."""
    cells = subject.rows("concurrency_throughput")
    if not cells:
        return None
    measured = Table(
        caption="What each number of clients gets.",
        columns=(
            word("backend", "backend"),
            word("model", "model"),
            word("scenario", "scenario"),
            number("clients", "concurrency", "assumed", count),
            number("achieved", "achieved_concurrency_median", "measured"),
            number("output tokens/s", "output_tokens_per_s_median", "measured"),
            interval("its interval", "output_tokens_per_s_ci_low", "output_tokens_per_s_ci_high", digits),
            number("TTFT (ms)", "ttft_ms_median", "measured"),
            number("TTFT p95 (ms)", "ttft_ms_p95", "measured"),
            number("ITL (ms)", "itl_p50_ms_median", "measured"),
            number("end to end (ms)", "client_e2e_ms_median", "measured"),
        ),
        rows=cells,
    )
    laws = Table(
        caption="Laws of throughput against clients.",
        columns=(
            word("backend", "backend"),
            word("model", "model"),
            word("scenario", "scenario"),
            word("law", "throughput_law"),
            number("contention", "contention", "derived"),
            number("coherency", "coherency", "derived"),
            number("clients at the peak", "peak_clients", "extrapolated"),
            number("R2", "r2", "derived", fixed),
        ),
        rows=subject.rows("concurrency_fits"),
    )
    said = Paragraph(
        "Clients of a group send together, and the next group starts when the last reply is done. The concurrency is "
        "the client's; what was achieved is the mean number of calls under way. Every law elsewhere is of one client."
    )
    return Section(title="Concurrency", blocks=(said, measured, laws))


def _two_places(value: float | None) -> str:
    return fixed(value, 2)


def _two_percent(value: float | None) -> str:
    return percent(value) if value is None else f"{100 * value:.2f} %"
