"""Served engines: their clocks and prompt caches, throughput against clients; and a CUDA device's own clock."""

from __future__ import annotations

from typing import Any

from phaselaw.laws import served
from phaselaw.laws.concurrency import CONCURRENCY_FITS, CONCURRENCY_THROUGHPUT
from phaselaw.laws.scaling import SCALING_FITS_BY_BASIS
from phaselaw.report.document import Section, display, section
from phaselaw.report.subject import Subject
from phaselaw.tables import LAW, MISSING, PHASE, Table, counted, derived, digits, words


def served_engines(subject: Subject) -> Section | None:
    """The server's figures against the client's clock, the laws by either, cache checks; ``None`` without a server."""
    tables = (
        display(served.SERVER_CLOCK, subject.rows(served.SERVER_CLOCK.name)),
        subject.table(SCALING_FITS_BY_BASIS, shows=SCALING_FITS_BY_BASIS.shows.replace(" r2", "")),
        subject.table(served.DECODE_LINEARITY),
        subject.table(served.DECODE_PROJECTION_ERROR),
        display(served.PROMPT_CACHE_CHECKS, subject.rows(served.PROMPT_CACHE_CHECKS.name)),
    )
    prose = (
        "What a server means by its durations differs between versions, so it is measured: decode is told by the "
        "client's clock, with the server's figure beside it (llama.cpp: by its own timings, with the client's clock "
        "beside them). Calls that a prompt cache answered are error rows for "
        "prefill and end to end; where the template's head was cached, a prefill rate per token holds for the rest of "
        "the prompt."
    )
    filled = [table for table in tables if table.rows]
    return section("Served engines", prose, *filled) if filled else None


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
    gaps = subject.ordered("cuda_event_gap_summary")
    prose = (
        "CUDA events time the device alone. Where the wall clock agrees, the timed region holds no host work after the "
        "last kernel; it does not show that the device was busy all the while."
    )
    rows = [row | {"calls": "warmup" if row["is_warmup"] else "measured"} for row in gaps]
    return section("Device clock", prose, display(_DEVICE, rows)) if rows else None


def concurrency(subject: Subject) -> Section | None:
    """Throughput against clients and the laws it follows; ``None`` without a sweep."""
    cells, fits = (subject.rows(table.name) for table in (CONCURRENCY_THROUGHPUT, CONCURRENCY_FITS))
    prose = (
        "Clients of a group send together, and the next group starts when the last reply is done. The concurrency is "
        "the client's; what was achieved is the mean number of calls under way. Every law elsewhere is of one client."
    )
    tables = display(CONCURRENCY_THROUGHPUT, cells), display(CONCURRENCY_FITS, fits)
    return section("Concurrency", prose, *tables) if cells else None
