"""The drive through the calls of a replicate: what is loaded, warmed up, called and kept. Prints nothing."""

import hashlib
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields, replace
from itertools import groupby
from typing import Any

from phaselaw import records
from phaselaw.engines import Engine, Model
from phaselaw.errors import EngineError, ModelGoneError, redacted
from phaselaw.machine.neighbours import Neighbours
from phaselaw.measure.order import schedule_of, together_of
from phaselaw.records import COLD_AGAIN, Call, Cell, Event, PlannedCall, Request, Timing, from_jsonable, to_jsonable
from phaselaw.study.model import ServedBackend, Study

Outcome = tuple[Timing | None, str | None]
"""What a call gave: its times, or its error in words."""

EQUAL_ERRORS = 10
"""So many equal errors in a row, and a backend is called no more."""
_NOT_TOGETHER = "not_together"


def measure(
    study: Study,
    *,
    engines: Mapping[str, Engine],
    done: Collection[str] = (),
    replicate: int = 0,
    process_idx: int = 0,
    first_call_idx: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Run the calls of a replicate that are not ``done`` and yield what happens, each event as soon as it is over.

    ``engines`` holds one engine a backend name; what has none is not called. A call that fails becomes a `Call` with
    ``status="error"``, a load that fails makes each call of its model one; the study goes on, but for a backend that
    gave `EQUAL_ERRORS` in a row. A model that is gone is loaded again. A cell that is entered after its warmups were
    done, on a resume or with a model that was loaded again, is warmed up again first. Models and engines are closed at
    the end, whatever ends it.
    """
    driver = _Driver(study, engines, process_idx, first_call_idx)
    try:
        planned = schedule_of(study, replicate, frozenset(driver.most_loaded))
        for _, turn in groupby(planned, key=lambda call: (call.cell.key, call.warmup_idx, call.rep)):
            together = tuple(turn)
            cell, wanted = together[0].cell, [call.call_id for call in together if call.call_id not in done]
            if cell.backend not in engines.keys() - driver.ended or not wanted:
                continue
            if should_stop():
                return
            yield from driver.loaded(cell)
            if not together[0].is_warmup:
                yield from driver.rewarmed(together[0])
                yield from driver.cold_again(together)
            yield from driver.calls(together, wanted)
    finally:
        driver.close()


class _Driver:
    """The state of one process's drive: what is loaded, and how cold each call will be."""

    def __init__(self, study: Study, engines: Mapping[str, Engine], process_idx: int, first_call_idx: int) -> None:
        self._study, self._engines = study, engines
        self._process_idx, self._next_call_idx = process_idx, first_call_idx
        self._models: dict[tuple[str, str], Model] = {}
        """Those loaded; the one not needed for longest is the first."""
        most = {name: engine.most_loaded(study.models_of(name)) for name, engine in engines.items()}
        self.most_loaded = {name: count for name, count in most.items() if count is not None}
        """How many models of a backend may be loaded at once, of those that can't hold all of theirs."""
        self._evicted: set[tuple[str, str]] = set()
        self._load_errors: dict[tuple[str, str], str] = {}
        self._load_ms: dict[tuple[str, str], float] = {}
        self._neighbours = Neighbours()
        self._calls_of_process = 0
        self._calls_of_model: Counter[tuple[str, str]] = Counter()
        self._calls_of_shape: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._gone: set[tuple[str, str]] = set()
        self._awaited: set[str] = set()
        self._outages: Counter[str] = Counter()
        self._in_a_row: dict[str, tuple[str, int]] = {}
        self.ended: set[str] = set()
        """The backends that are called no more."""

    def loaded(self, cell: Cell) -> Iterator[records.ModelLoaded | records.ServerAwaited]:
        """Load the cell's model unless it is loaded; yields the event where it was not."""
        key = (cell.backend, cell.model)
        if key in self._models:
            self._models[key] = self._models.pop(key)
        if key in self._models or key in self._load_errors:
            return
        engine = self._engines[cell.backend]
        held = [each for each in self._models if each[0] == cell.backend]
        out = held[: max(0, len(held) + 1 - self.most_loaded.get(cell.backend, len(held) + 1))]
        _close(*(self._models.pop(each) for each in out))
        self._evicted.update(out)
        if cell.backend in self._awaited:
            self._awaited.remove(cell.backend)
            at_most_s = getattr(self._study.backend(cell.backend), "reconnect_s", 0.0)
            yield records.ServerAwaited(backend=cell.backend, process_idx=self._process_idx, at_most_s=at_most_s)
        started, model = time.perf_counter_ns(), None
        try:
            model = engine.load(self._study.model(cell.model, cell.backend_kind))
            load_ms = (time.perf_counter_ns() - started) / 1e6
            event = records.ModelLoaded(
                backend=cell.backend,
                model=cell.model,
                process_idx=self._process_idx,
                load_ms=load_ms,
                info=model.info,
                engine=engine.describe(),
            )
            _keepable(event, "model")
        except Exception as error:
            self._load_errors[key] = _in_words(error)
            _close(*([] if model is None else [model]))
            return
        self._models[key], self._load_ms[key] = model, load_ms
        self._calls_of_model[key] = 0
        if "url" in event.engine.settings:
            self._neighbours.serves(cell.backend, event.engine.settings["url"])
        yield event

    def rewarmed(self, before: PlannedCall) -> Iterator[records.Rewarmed]:
        """Warm a call's cell up that this process has not called yet; yields the event where it did."""
        cell, warmups = before.cell, self._study.warmup_repetitions
        key = (cell.backend, cell.model)
        if self._calls_of_shape[key][cell.key] or not warmups or key not in self._models:
            return
        error = None
        for index in range(warmups):
            together = together_of(0, cell, (before.replicate, index, None))
            again = [replace(each, call_id=f"rewarm {self._process_idx} {each.call_id}") for each in together]
            error = next((why for _, why in self._at_once(again)[0] if why), None)
        yield records.Rewarmed(cell_key=cell.key, process_idx=self._process_idx, calls=warmups, error=error)

    def cold_again(self, together: Sequence[PlannedCall]) -> Iterator[Call | records.BackendEnded]:
        """A warmup more, kept as rows, of a model that had to go and was loaded again; a server's loads are its own."""
        key, warmups = (together[0].cell.backend, together[0].cell.model), self._study.warmup_repetitions
        in_process = not isinstance(self._study.backend(key[0]), ServedBackend)
        loaded_again = key in self._evicted and key in self._models and not self._calls_of_model[key]
        if loaded_again and warmups and in_process:
            more: dict[str, Any] = {"is_warmup": True, "rep": None, "warmup_idx": warmups}
            ids = (f"{each.call_id}{COLD_AGAIN}{self._process_idx}" for each in together)
            yield from self.calls([replace(each, call_id=of, **more) for each, of in zip(together, ids, strict=True)])

    def calls(
        self, together: Sequence[PlannedCall], wanted: Collection[str] | None = None
    ) -> Iterator[Call | records.BackendEnded]:
        """Run the planned calls of one cell that belong together, several at once; never raises for an engine.

        Several clients start in step: each connects, and all send together. Those whose ids are not ``wanted`` are kept
        already: they are the load that the others are measured under.
        """
        cell = together[0].cell
        key = (cell.backend, cell.model)
        coldness: dict[str, Any] = {
            "calls_since_process_start": self._calls_of_process,
            "calls_since_model_load": self._calls_of_model[key],
            "calls_since_shape_first_seen": self._calls_of_shape[key][cell.key],
        }
        started_at_unix, outages = time.time(), self._outages[cell.backend]
        self._neighbours.before(cell.backend)
        outcomes, started_ms = self._at_once(together)
        # Of a simulated call there is nothing to tell: its times are computed, whatever else runs.
        beside = None if cell.backend_kind == "simulated" else self._neighbours.after(cell.backend)
        achieved = _achieved_concurrency([timing for timing, _ in outcomes if timing is not None])
        load_ms = self._load_ms.pop(key, None)
        for planned, (timing, error) in zip(together, outcomes, strict=True):
            if wanted is not None and planned.call_id not in wanted:
                continue
            served = None if timing is None else timing.served
            call_idx, self._next_call_idx = self._next_call_idx, self._next_call_idx + 1
            asked: dict[str, Any] = {field.name: getattr(planned, field.name) for field in fields(planned)}
            yield Call(
                **asked,
                call_idx=call_idx,
                status="ok" if timing is not None else "error",
                error=error,
                started_at_unix=started_at_unix,
                process_idx=self._process_idx,
                load_ms=load_ms,
                timing=timing,
                queue_delay_ms=None if served is None or started_ms is None else served.sent_at_ms - started_ms,
                achieved_concurrency=achieved if cell.concurrency > 1 else None,
                beside=beside,
                outages=outages,
                **coldness,
            )
            load_ms = None
        if key in self._models:  # a load that failed costs no time, and says nothing of the backend's other models
            yield from self._judged(cell.backend, outcomes)
        while self._gone:  # the next call loads such a model, and finds all its shapes cold
            gone = self._gone.pop()
            _close(self._models.pop(gone))
            self._calls_of_shape.pop(gone, None)

    def _at_once(self, together: Sequence[PlannedCall]) -> tuple[list[Outcome], float | None]:
        """The outcome of each call, and when all were let go, by the clock of ``Served.sent_at_ms``."""
        if len(together) == 1:
            return [self._generate(together[0])], None
        opened_ms: list[float] = []
        gate = threading.Barrier(len(together), action=lambda: opened_ms.append(time.perf_counter_ns() / 1e6))

        def wait() -> None:
            try:
                gate.wait()
            except threading.BrokenBarrierError:
                raise EngineError("another client failed before all had started", kind=_NOT_TOGETHER) from None

        def client(planned: PlannedCall) -> Outcome:
            outcome = self._generate(planned, wait)
            if outcome[0] is None:
                gate.abort()  # Whoever waits for this client would wait in vain.
            return outcome

        with ThreadPoolExecutor(max_workers=len(together)) as pool:
            try:
                return list(pool.map(client, together)), opened_ms[-1] if opened_ms else None
            except BaseException:
                # A second Ctrl-C: what the clients wait for is closed under them, so that none is waited for.
                gate.abort()
                self.close()
                raise

    def _generate(self, planned: PlannedCall, before_send: Callable[[], None] | None = None) -> Outcome:
        cell = planned.cell
        key = (cell.backend, cell.model)
        if key in self._load_errors:
            return None, self._load_errors[key]
        scenario = self._study.scenario(cell.scenario)
        digest = hashlib.sha256(f"{self._study.seed}/{cell.key}/{planned.call_id}".encode()).digest()
        request = Request(
            prompt=scenario.prompt,
            prompts=scenario.prompts,
            prompt_tokens=scenario.prompt_tokens,
            gen_tokens=cell.gen_tokens,
            batch_size=cell.batch_size,
            study_seed=self._study.seed,
            seed=int.from_bytes(digest[:8], "big") >> 1,
            round=planned.rep,
            replicate=planned.replicate,
            before_send=before_send,
        )
        self._calls_of_process += 1
        self._calls_of_model[key] += 1
        self._calls_of_shape[key][cell.key] += 1
        try:
            timing = self._models[key].generate(request)
            if (timing.prefill_ms or 0) < 0 or (timing.kv_decode_ms or 0) < 0:
                times = f"{timing.prefill_ms} ms, {timing.kv_decode_ms} ms"
                raise EngineError(f"a negative time: {times}", kind="bad_timing")
            _keepable(timing, "timing")
            return timing, None
        except Exception as error:
            if isinstance(error, ModelGoneError):
                # A server that went took all its models.
                whole = error.kind in ("refused", "unreachable")
                self._gone |= {each for each in self._models if each == key or (whole and each[0] == cell.backend)}
                if whole and cell.backend not in self._awaited:
                    self._awaited.add(cell.backend)
                    self._outages[cell.backend] += 1
            return None, _in_words(error)

    def _judged(self, backend: str, outcomes: Sequence[Outcome]) -> Iterator[records.BackendEnded]:
        """Count equal errors in a row of a backend, digits aside; yields the event where it ends by them.

        Clients that called at once are one: a server that has too much to do serves fewer of them.
        """
        errors = [] if any(error is None for _, error in outcomes) else [str(error) for _, error in outcomes]
        # Not what another client's error brought about.
        error = next((each for each in errors if not each.startswith(f"{_NOT_TOGETHER}:")), None)
        same = "" if error is None else re.sub(r"[0-9]+", "#", error)
        before, times = self._in_a_row.get(backend, ("", 0))
        times = times + 1 if same == before else 1
        self._in_a_row[backend] = (same, times)
        if error is not None and times >= EQUAL_ERRORS and backend not in self.ended:
            self.ended.add(backend)
            yield records.BackendEnded(backend=backend, process_idx=self._process_idx, error=error)

    def close(self) -> None:
        _close(*self._models.values(), *self._engines.values())


def _close(*open_ones: Model | Engine) -> None:
    # What was measured is measured: an engine that stumbles when it lets go must not end the study.
    for each in open_ones:
        with suppress(Exception):
            each.close()


def _keepable(record: Any, what: str) -> None:
    """Raise `EngineError` for a record that the journal would not be read with: a number that no table can hold."""
    try:
        from_jsonable(type(record), to_jsonable(record))
    except (TypeError, ValueError) as error:
        raise EngineError(f"a {what} that can't be kept: {error}", kind=f"bad_{what}") from None


def _achieved_concurrency(timings: Sequence[Timing]) -> float | None:
    """Mean number of calls under way between the first send and the last end; ``None`` where none was timed so."""
    spans = [(each.served.sent_at_ms, each.served.e2e_ms) for each in timings if each.served is not None]
    if not spans:
        return None
    whole = max(sent + took for sent, took in spans) - min(sent for sent, _ in spans)
    return sum(took for _, took in spans) / whole if whole > 0 else None


def _in_words(error: Exception) -> str:
    """One line for a failure; an error that no engine foresaw also names its type."""
    visible = "".join(letter if letter.isprintable() else " " for letter in redacted(str(error)))
    text = " ".join(visible.split())[:500]
    return f"{error.kind}: {text}" if isinstance(error, EngineError) else f"unexpected {type(error).__name__}: {text}"
