"""Served engines: their clocks and prompt caches, throughput against clients; and a CUDA device's own clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from phaselaw.laws import served
from phaselaw.laws.concurrency import CONCURRENCY_FITS, CONCURRENCY_THROUGHPUT
from phaselaw.laws.scaling import SCALING_FITS_BY_BASIS
from phaselaw.laws.summary import CUDA_EVENT_GAP_SUMMARY
from phaselaw.report.document import Section, display, section
from phaselaw.report.subject import Subject
from phaselaw.tables import Row, alike


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


def device_clock(subject: Subject) -> Section | None:
    """The device's own clock against the wall's, on CUDA; ``None`` where there are no event times (TR121 2.2.1)."""
    gaps = subject.table(CUDA_EVENT_GAP_SUMMARY)
    prose = (
        "CUDA events time the device alone. Where the wall clock agrees, the timed region holds no host work after the "
        "last kernel; it does not show that the device was busy all the while."
    )
    return section("Device clock", prose, gaps) if gaps.rows else None


def concurrency(subject: Subject) -> Section | None:
    """Throughput against clients and the laws it follows; ``None`` without a sweep."""
    cells, fits = (subject.rows(table.name) for table in (CONCURRENCY_THROUGHPUT, CONCURRENCY_FITS))
    prose = (
        "Clients of a group send together, and the next group starts when the last reply is done. The concurrency is "
        "the client's; what was achieved is the mean number of calls under way. Every law elsewhere is of one client."
    )
    tables = display(CONCURRENCY_THROUGHPUT, cells), display(CONCURRENCY_FITS, fits)
    return section("Concurrency", prose, *at_once(cells), *tables) if cells else None


def at_once(cells: Iterable[Row]) -> Iterator[str]:
    """How many requests a server serves at once, where more clients than that called it."""
    for (backend,), rows in alike((row for row in cells if row["servedat_once"] is not None), "backend").items():
        most, clients = (max(float(row[name]) for row in rows) for name in ("servedat_once", "concurrency"))
        if most < clients:
            served = "one request at a time" if most <= 1 else f"{most:g} requests at once"
            yield f"{backend} served {served}: others waited for their first token (Ollama: OLLAMA_NUM_PARALLEL)."
