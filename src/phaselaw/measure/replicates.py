"""Replicates, and models where that is asked: each by a fresh process, ``python -m phaselaw.measure.replicates``.

The parent alone writes the run directory. A child makes one replicate's calls and sends each event as soon as it is
over; it goes on when the parent has kept it and says so, so that nothing is written while a call runs. However the
parent ends, a kill -9 included, the system closes its end of the child's standard input, and the child ends at once.
"""

import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Generator
from typing import Any

from phaselaw.engines import module_for
from phaselaw.errors import PhaselawError, RunError
from phaselaw.measure.calls import measure
from phaselaw.measure.order import schedule
from phaselaw.records import Event, PlannedCall
from phaselaw.rundir.write import RunDirectory
from phaselaw.study.model import Study

GO_ON, STOP = b"+", b"-"
"""The parent's answers to an event: it is kept, and the next call may be made; or there is to be none."""

ShouldStop = Callable[[], bool]
"""Whether no further call is to be made; asked after each."""
Measured = tuple[list[PlannedCall], int, Generator[Event]]
"""The calls to make, how many are done, and the events, each kept, then yielded."""
_END_WAIT_S = 10.0


class LostProcessError(RunError):
    """The process of a replicate ended though nobody had asked it to."""


def measure_run(directory: RunDirectory, should_stop: ShouldStop) -> Measured:
    """Measure what a run still lacks; one replicate, no model of it alone, is measured in this process."""
    study, done = directory.study, directory.done
    planned = schedule(study)
    todo = [call for call in planned if call.call_id not in done]
    alone = {backend.name for backend in study.backends if getattr(backend, "fresh_process", False)}

    def process_of(call: PlannedCall) -> tuple[int, str]:
        return call.replicate, f"{call.cell.backend} {call.cell.model}" if call.cell.backend in alone else ""

    def events() -> Generator[Event]:
        for at, process in enumerate(dict.fromkeys(map(process_of, todo))):
            if should_stop():
                return
            if at:
                directory.begin_next_process()
            counts: dict[str, Any] = {"process_idx": directory.process_idx, "first_call_idx": directory.next_call_idx}
            part = in_a_fresh_process if study.replicates > 1 or alone else _in_this_process
            not_its = done | {call.call_id for call in planned if process_of(call) != process}
            for event in part(study, should_stop, done=not_its, replicate=process[0], **counts):
                directory.append(event)
                yield event

    return todo, len(planned) - len(todo), events()


def _in_this_process(
    study: Study, should_stop: ShouldStop, *, backends: Collection[str] | None = None, **which: Any
) -> Generator[Event]:
    """The events of the replicate that ``which`` says, as `measure` has it, on all ``backends`` for ``None``."""
    wanted = [each for each in study.backends if backends is None or each.name in backends]
    engines = {backend.name: module_for(backend.kind).create(backend) for backend in wanted}
    yield from measure(study, engines=engines, should_stop=should_stop, **which)


def in_a_fresh_process(study: Study, should_stop: ShouldStop, **which: Any) -> Generator[Event]:
    """The same, by a child that lives no longer than this generator; raises `RunError` where it fails."""
    child = subprocess.Popen(
        [sys.executable, "-m", "phaselaw.measure.replicates"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the parent, which lets the current call end
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        pickle.dump((study, which), child.stdin)
        child.stdin.flush()
        while True:
            event: Event | str | None = pickle.load(child.stdout)
            if event is None:
                return
            if isinstance(event, str):
                raise RunError(event)
            yield event
            child.stdin.write(STOP if should_stop() else GO_ON)
            child.stdin.flush()
    except (EOFError, OSError, pickle.UnpicklingError):
        code = child.wait()
        raise LostProcessError(
            f"the process of replicate {which['replicate']} ended with exit code {code}; go on with --resume"
        ) from None
    finally:  # the child ends where its standard input does
        try:
            child.communicate(timeout=_END_WAIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()


def main() -> None:
    """The child: measure one replicate, as standard input says, and send its events to standard output."""
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no event
    study, which = pickle.load(sys.stdin.buffer)
    answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        # Each answer comes alone, since the next event is sent after it.
        while answer := os.read(0, len(GO_ON)):
            answers.put(answer)
        os._exit(1)  # the parent is gone, or wants no more

    def send(event: Event | str | None) -> None:
        pickle.dump(event, events)
        events.flush()

    threading.Thread(target=listen, daemon=True).start()
    stop = threading.Event()
    try:
        for event in _in_this_process(study, stop.is_set, **which):
            send(event)
            if answers.get() == STOP:
                stop.set()
        send(None)
    except PhaselawError as error:
        send(str(error))


if __name__ == "__main__":
    main()
