"""What people see: data on stdout, notes on stderr, and the live display of a run.

On a terminal one block is redrawn; elsewhere (a pipe, CI) one plain line is written now and then.
"""

import math
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

from phaselaw import records
from phaselaw.records import COLD_AGAIN, Call, Event, PlannedCall, duration
from phaselaw.rundir.columns import decode_step_ms, phase_latency_ms

PLAIN_LINE_EVERY_S = 10.0
"""Seconds between two lines of progress where nothing can be redrawn."""


def screen(width: int | None = None) -> Console:
    """stdout, so many characters wide; else as wide as the terminal is, and 80 on a pipe."""
    console = Console(highlight=False, width=width)
    return console if width or console.is_terminal else screen(80)


def notes_console() -> Console:
    """stderr, for what is no data."""
    return Console(stderr=True, highlight=False)


def note(*texts: str) -> None:
    """Lines on stderr of what a reader must know."""
    sys.stderr.write("".join(f"phaselaw: note: {text}\n" for text in texts))


def describe_call(call: Call) -> str:
    """One line of a call: its cell, which call of the cell it was, and its timings or its error."""
    which = f"warmup {call.warmup_idx}" if call.is_warmup else f"round {call.rep}"
    which = f"replicate {call.replicate}, {which}" if call.replicate else which
    cell = f"{call.cell.backend} {call.cell.model} {call.cell.scenario} ({which})"
    if call.timing is None:
        return f"{cell}: failed: {call.error}"
    latencies = phase_latency_ms(call.timing, call.cell.gen_tokens)
    if math.isnan(latencies["kv_decode"]):
        return f"{cell}: {latencies['e2e_kv']:.1f} ms"
    step, prefill = f"{decode_step_ms(call.timing):.2f} ms a step", f"{cell}: prefill {latencies['prefill']:.1f} ms"
    if call.timing.gen_tokens_raw != call.cell.gen_tokens:  # its latency is scaled to the budget: nobody waited so long
        return f"{prefill}, {step} ({call.timing.gen_tokens_raw} of {call.cell.gen_tokens} tokens)"
    return f"{prefill}, decode {latencies['kv_decode']:.1f} ms ({step})"


class RunProgress:
    """Shows the events of a run as they come; a context manager."""

    def __init__(self, schedule: Sequence[PlannedCall], *, already_done: int, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._done, self._total, self._failed = already_done, already_done + len(schedule), 0
        self._made: defaultdict[int, list[Call]] = defaultdict(list)
        self._ended = 0
        self._began = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("measuring"),
            BarColumn(16),
            MofNCompleteColumn(),
            TextColumn("calls{task.fields[left]}"),
            TextColumn("{task.fields[now]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            console=console,
            expand=True,
            disable=not self._live,
            transient=True,
        )
        self._task = self._bar.add_task("", total=self._total, completed=already_done, left="", now="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, event: Event) -> None:
        """Take one event of the run and redraw."""
        if isinstance(event, records.ModelLoaded):
            self._note(f"loaded {event.model} on {event.backend} in {event.load_ms / 1000:.1f} s")
        elif isinstance(event, records.Rewarmed):
            self._note(f"warmed up again: {event.cell_key}")
        elif isinstance(event, records.ServerAwaited):
            self._say(f"the server of {event.backend} is gone; waiting {event.at_most_s:g} s for it")
        elif isinstance(event, records.BackendEnded):
            self._say(f"{event.backend} gave this again and again, and is called no more: {event.error}")
        elif isinstance(event, records.Abandoned):
            self._say(f"{event.why}; what it had measured of its replicate is measured anew")
            for call in (call for process in event.processes for call in self._made.pop(process, ())):
                self._done -= 1
                self._failed -= call.status != "ok"
        else:
            self._failed += event.status != "ok"
            if COLD_AGAIN not in event.call_id:  # else it is beyond the plan
                self._done += 1
                self._ended += 1
                self._made[event.process_idx].append(event)
            if event.status != "ok" and self._live:
                self._say(describe_call(event), style="red")
            self._note(describe_call(event))

    def _say(self, what: str, **how: Any) -> None:
        self._console.print(Text(what), **how)

    def _note(self, what: str) -> None:
        now = time.monotonic()
        a_call = (now - self._began) / self._ended if self._ended else None  # on average; loads and waits among it
        left = "" if a_call is None else f", about {duration(round(a_call * (self._total - self._done)))} left"
        left += f", {self._failed} failed" if self._failed else ""
        if self._live:
            self._bar.update(self._task, completed=self._done, left=left, now=what)
        elif self._done == self._total or now - self._last_line >= PLAIN_LINE_EVERY_S:
            self._last_line = now
            self._say(f"{self._done}/{self._total} calls{left}; {what}", soft_wrap=True)
