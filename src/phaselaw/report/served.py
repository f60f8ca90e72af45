"""Served engines: their clocks and prompt caches, throughput against clients; and a CUDA device's own clock."""

from __future__ import annotations

from typing import Any

from phaselaw.laws import served
from phaselaw.laws.concurrency import CONCURRENCY_FITS, CONCURRENCY_THROUGHPUT
from phaselaw.report.document import Paragraph, Section, display
from phaselaw.report.subject import Subject
from phaselaw.tables import LAW, MISSING, PHASE, Table, counted, derived, digits, fixed, interval, words

_BY_BASIS = Table(
    caption="Exponents by the steps that ran (step_true) and by TR121's projection (tr121).",
    columns=(
        LAW,
        PHASE,
        words(served.BASIS, "basis"),
        counted("n_models", "models"),
        derived("slope", "exponent", fixed),
        *interval("slope_t_ci_low", "slope_t_ci_high", "interval"),
        words("verdict", "verdict"),
    ),
)


def served_engines(subject: Subject) -> Section | None:
    """The server's figures against the client's clock, the laws by either, cache checks; ``None`` without a server."""
    tables = (
        (served.SERVER_CLOCK, subject.rows("server_clock")),
        (_BY_BASIS, subject.ordered("scaling_fits_by_basis")),
        (served.DECODE_LINEARITY, subject.ordered("ollama_decode_linearity")),
        (served.DECODE_PROJECTION_ERROR, subject.ordered("ollama_decode_projection_error")),
        (served.PROMPT_CACHE_CHECKS, subject.rows("prompt_cache_checks")),
    )
    filled = tuple(display(table, rows) for table, rows in tables if rows)
    if not filled:
        return None
    prose = Paragraph(
        "What a server means by its durations differs between versions, so it is measured: decode is told by the "
        "client's clock, with the server's figure beside it (llama.cpp: by its own timings, with the client's clock "
        "beside them). Calls that a prompt cache answered are error rows for "
        "prefill and end to end; where the template's head was cached, a prefill rate per token holds for the rest of "
        "the prompt."
    )
    return Section(title="Served engines", blocks=(prose, *filled))


def _small_percent(value: Any) -> str:
    return MISSING if value is None else f"{digits(100 * value)} %"


_DEVICE = Table(
    caption="Wall clock less CUDA events, as a share of the wall clock and in ms.",
    columns=(
        LAW,
        PHASE,
        words("calls", "calls"),
        counted("n", "rows"),
        derived("rel_gap_median", "gap, median", _small_percent),
        derived("rel_gap_p95", "gap, p95", _small_percent),
        derived("abs_gap_ms_median", "gap, median (ms)"),
        derived("abs_gap_ms_p95", "gap, p95 (ms)"),
    ),
)


def device_clock(subject: Subject) -> Section | None:
    """The device's own clock against the wall's, on CUDA; ``None`` where there are no event times (TR121 2.2.1)."""
    rows = [
        row | {"calls": "warmup" if row["is_warmup"] else "measured"}
        for row in subject.ordered("cuda_event_gap_summary")
    ]
    prose = Paragraph(
        "CUDA events time the device alone. Where the wall clock agrees, the timed region holds no host work after the "
        "last kernel; it does not show that the device was busy all the while."
    )
    return Section(title="Device clock", blocks=(prose, display(_DEVICE, rows))) if rows else None


def concurrency(subject: Subject) -> Section | None:
    """Throughput against clients and the laws it follows; ``None`` without a sweep."""
    cells = subject.rows(CONCURRENCY_THROUGHPUT.name)
    prose = Paragraph(
        "Clients of a group send together, and the next group starts when the last reply is done. The concurrency is "
        "the client's; what was achieved is the mean number of calls under way. Every law elsewhere is of one client."
    )
    tables = display(CONCURRENCY_THROUGHPUT, cells), display(CONCURRENCY_FITS, subject.rows(CONCURRENCY_FITS.name))
    return Section(title="Concurrency", blocks=(prose, *tables)) if cells else None
