"""The ``metrics.csv`` format: one row for each phase of each call.

`MEASURED` is the one list of its columns: what each holds, where its value is from, and how analysis reads it. The rows
(`rows_of`), the reader's types (`phaselaw.rundir.read`) and the table in docs/run-directory.md follow from it. This is
also the one place where a call's raw times become latencies, token counts and rates (method: TR121 2.1-2.3).
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter, sub
from typing import Any, Literal, NamedTuple

from phaselaw.records import PHASES, Call, Cell, Phase, Timing, finite
from phaselaw.servers.caches import judged
from phaselaw.servers.streams import settled

SCHEMA_VERSION = 2
"""Version of the run directory. 2 has replicates and hashes; a run of version 1 is read as one replicate."""

Read = Literal["number", "text", "optional text", "unread"]
"""How analysis reads a column. Numbers and ``optional text`` are empty where a file lacks them; ``unread`` is for other
readers."""


class Column(NamedTuple):
    """One column of ``metrics.csv``."""

    name: str
    value: str | Callable[[Call], Any]
    """An attribute of ``call``, ``cell``, ``timing``, ``served``, ``beside`` or ``ollama`` (the timing of a call to
    Ollama), empty where a call has none; a function of the call; ``study``, which the caller of `rows_of` knows; or
    ``phase``, which `rows_of` fills in."""
    doc: str
    read: Read = "number"


def decode_step_ms(timing: Timing) -> float:
    """Milliseconds of one decode step; NaN where it can't be told.

    In process: the decode time over the steps that ran. Served: the client's own figure, since servers differ in how
    many steps their decode time spans.
    """
    if timing.served is not None:
        step = timing.served.decode_step_ms
        return math.nan if step is None else step
    if timing.kv_decode_ms is None or timing.gen_tokens_raw <= 0:
        return math.nan
    return timing.kv_decode_ms / timing.gen_tokens_raw


def _by_phase(prefill: float, decode: float) -> dict[Phase, float]:
    """What adds up over the phases: times, and tokens (TR121 2.2)."""
    return {"prefill": prefill, "kv_decode": decode, "e2e_kv": prefill + decode}


def phase_latency_ms(timing: Timing, gen_tokens: int) -> dict[Phase, float]:
    """Latency of each phase for a decode of exactly ``gen_tokens`` steps; ``e2e_kv`` is the sum of the other two.

    Of one token asked of a served engine the whole is its TTFT, and there is no decode phase: NaN. On served engines
    otherwise, and where the model stopped early, the decode phase is ``decode_step_ms x gen_tokens``: what the
    asked budget takes at the pace that was seen. NaN where a phase could not be measured.
    """
    prefill = math.nan if timing.prefill_ms is None else timing.prefill_ms
    if timing.served is not None and gen_tokens == 1:
        return {"prefill": prefill, "kv_decode": math.nan, "e2e_kv": timing.served.ttft_ms}
    decode = decode_step_ms(timing) * gen_tokens
    if timing.served is None and timing.gen_tokens_raw == gen_tokens and timing.kv_decode_ms is not None:
        decode = timing.kv_decode_ms
    return _by_phase(prefill, decode)


def tokens_per_s(tokens_total: float, latency_ms: float) -> float:
    """``tokens_total / (latency_ms / 1000)``; NaN where the latency is not positive."""
    return tokens_total / (latency_ms / 1000.0) if latency_ms > 0 else math.nan


def _projected(call: Call, tokens: int) -> float | None:
    """TR121's projection to so many tokens by the engine's own decode time: on served engines low by about one step."""
    timing = call.timing
    if timing is None or timing.done_reason is None or timing.kv_decode_ms is None or timing.gen_tokens_raw <= 0:
        return None
    return timing.kv_decode_ms / timing.gen_tokens_raw * tokens


def _projected_tokens(call: Call) -> int | None:
    return None if _projected(call, 1) is None else call.cell.gen_tokens


def _ollama_total_ms(call: Call) -> Any:
    return call.timing.server.get("total_duration_ms") if call.timing and call.cell.backend_kind == "ollama" else None


def _load_ms(call: Call) -> float | None:
    """The server's own figure where it gives one: it loads within the call."""
    served = call.timing.served if call.timing else None
    return call.load_ms if served is None or served.load_ms is None else served.load_ms


def _request_ms(call: Call) -> float | None:
    """TTFT (on engines in process the prefill) and a decode step for each token that came after its event."""
    timing = call.timing
    first = None if timing is None else timing.prefill_ms if timing.served is None else timing.served.ttft_ms
    at_first = timing and timing.served and timing.served.first_event_tokens
    steps = max(0.0, call.cell.gen_tokens - (at_first or 1))
    if timing is None or first is None or (timing.served is not None and "e2e_kv" in timing.served.faults):
        return None
    return finite(first + (decode_step_ms(timing) * steps if steps else 0.0))


def _half_ms(call: Call, half: int) -> float | None:
    """The mean step of one half of a decode; the second has the odd one."""
    steps = (call.timing and call.timing.decode_steps_ms) or ()
    middle = len(steps) // 2
    part = steps[middle:] if half else steps[:middle]
    return math.fsum(part) / len(part) if middle else None


def _gap_ms(call: Call, share: float) -> float | None:
    """The linearly interpolated quantile of the gaps between arrivals; ``None`` where there is no gap."""
    served = call.timing and call.timing.served
    arrivals = served.arrivals_ms if served else ()
    gaps: list[float] = sorted(map(sub, arrivals[1:], arrivals))
    if not gaps:
        return None
    at = share * (len(gaps) - 1)
    below, above = gaps[int(at)], gaps[min(int(at) + 1, len(gaps) - 1)]
    return below + (at - int(at)) * (above - below)


MEASURED: tuple[Column, ...] = (
    Column("task_idx", "call.task_idx", "the cell's index in the study's seeded order", "unread"),
    Column("scenario", "cell.scenario", "the cell, by name", "text"),
    Column("backend", "cell.backend", "the cell, by name", "text"),
    Column("backend_kind", "cell.backend_kind", "the cell, by name", "text"),
    Column("model", "cell.model", "the cell, by name", "text"),
    Column("model_kind", "cell.backend_kind", "the cell, by name", "text"),
    Column("params_millions", "study", "the study's label where it has one, else the measured count"),
    Column("params_millions_config", "study", "the study's label"),
    Column("prompt", "study", "the prompt; empty for a synthetic one", "unread"),
    Column("prompt_chars", "study", "characters of the prompt"),
    Column("gen_tokens_target", "cell.gen_tokens", "decode steps asked for"),
    Column("batch_size_config", "cell.batch_size", "sequences in a call", "unread"),
    Column("call_idx", "call.call_idx", "execution order of the call"),
    Column("sample_idx", "phase", "execution order of the row", "unread"),
    Column("is_warmup", "call.is_warmup", "whether the call is a warmup", "text"),
    Column("warmup_idx", "call.warmup_idx", "which warmup", "unread"),
    Column("rep", "call.rep", "which repetition of the replicate; under `order: rounds` it is the round"),
    Column("mode", "phase", "the phase: `prefill`, `kv_decode` or `e2e_kv`", "text"),
    Column("status", "call.status", "`ok`, `error`, `abandoned`, or `not_applicable`: no decode of one token", "text"),
    Column("error", "call.error", "why the call, or this phase of it, can't be used", "optional text"),
    Column("started_at_unix", "call.started_at_unix", "seconds since 1970"),
    Column("batch_size", "cell.batch_size", "sequences in a call"),
    Column("seq_len", "timing.prompt_tokens", "prompt tokens of the longest sequence in the batch"),
    Column("prompt_tokens_raw", "timing.prompt_tokens_total", "prompt tokens of the batch, padding left out"),
    Column("prefill_ms", "timing.prefill_ms", "the call's raw prefill time"),
    Column("prefill_cuda_event_ms", "timing.prefill_cuda_event_ms", "the same by CUDA's events", "unread"),
    Column("kv_decode_ms", "timing.kv_decode_ms", "the call's raw decode time"),
    Column("kv_decode_ms_equiv", lambda c: _projected(c, c.cell.gen_tokens), "the same, scaled to `gen_tokens_equiv`"),
    Column("kv_decode_ms_per_token", lambda c: _projected(c, 1), "the same, a token"),
    Column("kv_decode_cuda_event_ms", "timing.kv_decode_cuda_event_ms", "the same by CUDA's events", "unread"),
    Column("gen_tokens_raw", "timing.gen_tokens_raw", "decode steps that ran"),
    Column("gen_tokens_equiv", _projected_tokens, "tokens asked for, where a model may stop early", "unread"),
    Column("ollama_wall_ms", "ollama.served.wall_ms", "the reply's end minus the send", "unread"),
    Column("ollama_total_duration_ms", _ollama_total_ms, "what Ollama says that the call took", "unread"),
    Column("ollama_load_ms", "ollama.served.load_ms", "what Ollama says that loading took"),
    Column("ollama_done_reason", "ollama.done_reason", "why Ollama ended: `length` or `stop`", "optional text"),
    Column("params_millions_measured", "study", "the parameters counted (laws use this one)"),
    Column("latency_ms", "phase", "the phase's latency, for exactly `gen_tokens_target` steps"),
    Column("cuda_event_ms", "phase", "the phase's latency by CUDA's events, on CUDA only"),
    Column("tokens_total", "phase", "the phase's tokens (prompt, generated, or both) times batch"),
    Column("tokens_per_s", "phase", "`tokens_total` a second"),
    Column("gen_tokens", "phase", "generated tokens; 0 in prefill rows"),
    Column("gpu_peak_mb", "timing.gpu_peak_mb", "peak allocated GPU memory, in MB of 2^20 bytes"),
    Column("hf_load_ms", lambda c: c.load_ms if c.cell.backend_kind == "hf" else None, "load time, as `load_ms`"),
    # Ours, after the 44 columns of TR121.
    Column("call_id", "call.call_id", "the call's identity, the same after a resume", "unread"),
    Column("process_idx", "call.process_idx", "which process measured it, from 0; another each replicate and resume"),
    Column("calls_since_process_start", "call.calls_since_process_start", "0 is cold", "unread"),
    Column("calls_since_model_load", "call.calls_since_model_load", "0 is cold"),
    Column("calls_since_shape_first_seen", "call.calls_since_shape_first_seen", "0 is cold"),
    Column("prompt_tokens_compute", lambda c: c.timing and c.timing.prompt_tokens * c.cell.batch_size, "with padding"),
    Column("tokens_total_compute", "phase", "`tokens_total` and its rate, padding counted"),
    Column("tokens_per_s_compute", "phase", "`tokens_total` and its rate, padding counted"),
    Column(
        "decode_step_ms", lambda c: c.timing and finite(decode_step_ms(c.timing)), "milliseconds of one decode step"
    ),
    Column("done_reason", "timing.done_reason", "`length` or `stop`, where a model may stop early", "optional text"),
    Column("load_ms", _load_ms, "load time, on the first call after a load"),
    Column("output_sha256", "timing.output_sha256", "SHA-256 of the generated token ids", "unread"),
    Column("ttft_ms", "served.ttft_ms", "first token minus send, by the client's clock"),
    Column("client_e2e_ms", "served.e2e_ms", "last token minus send"),
    Column("itl_p50_ms", lambda c: _gap_ms(c, 0.5), "median gap between the chunks that hold text"),
    Column("itl_p99_ms", lambda c: _gap_ms(c, 0.99), "their 99th percentile", "unread"),
    Column("queue_ms", "served.queue_ms", "TTFT less the server's load and prefill: the wait for a slot"),
    Column("connect_ms", "served.connect_ms", "connection set-up, no part of the other times", "unread"),
    Column("decode_step_basis", "served.decode_step_basis", "which clock, see below", "optional text"),
    Column("decode_step_ms_client", "served.decode_step_ms_client", "a decode step by the client's clock"),
    Column("decode_step_ms_server", "served.decode_step_ms_server", "a decode step by the server's clock"),
    Column("model_was_loaded", "served.model_was_loaded", "whether it was loaded before", "unread"),
    Column("cache_check", "served.cache_check", "of the prompt cache, see below", "optional text"),
    Column("cache_reason", "served.cache_reason", "which figures decided that", "unread"),
    Column("head_cached", "served.head_cached", "whether a chat template's head may have been cached", "optional text"),
    Column("prefill_basis", "served.prefill_basis", "the prefill time is the `server`'s, or `ttft`", "unread"),
    Column("tokens_basis", "served.tokens_basis", "tokens counted by the `server`, or `estimated`", "optional text"),
    Column("thinking_tokens", "served.thinking_tokens", "chunks of hidden reasoning", "unread"),
    Column("concurrency", "cell.concurrency", "clients asked for"),
    Column("client_idx", "call.client_idx", "which of the clients", "unread"),
    Column("achieved_concurrency", "call.achieved_concurrency", "calls under way on average"),
    Column("queue_delay_ms", "call.queue_delay_ms", "sent minus scheduled, where several clients start together"),
    Column("sent_at_ms", "served.sent_at_ms", "the send by the process's monotonic clock"),
    Column("threads", "study", "CPU threads that the study asks of the backend"),
    Column("decode_first_half_step_ms", lambda c: _half_ms(c, 0), "mean decode step of each half of a call"),
    Column("decode_second_half_step_ms", lambda c: _half_ms(c, 1), "mean decode step of each half of a call"),
    Column("rss_peak_mb", "timing.rss_peak_mb", "peak resident memory of the model's process, in MB of 2^20 bytes"),
    Column("replicate", "call.replicate", "which replicate: 0, then one more for each fresh process over all cells"),
    Column("request_ms", _request_ms, "what a person waits for all tokens: the first event's, then a step each"),
    Column("prefill_ms_server", "served.prefill_ms_server", "the server's own prefill time, whatever serves"),
    Column("gen_tokens_counted", "served.tokens_counted", "tokens generated, as the server counts"),
    Column("events", lambda c: c.timing and c.timing.served and len(c.timing.served.arrivals_ms), "that held text"),
    Column("first_event_tokens", "served.first_event_tokens", "tokens that the first event held: TTFT is of so many"),
    Column("outages", "call.outages", "how often its server had been gone and come back before", "unread"),
    Column("params_millions_named", "study", "the size in the model's name, where nothing else says one"),
    Column("false_claims", "served.false_claims", "what the client's clock contradicts, see below", "optional text"),
    Column("own_cpus", "beside.own_cpus", "processors kept busy by phaselaw and the server it calls, on average"),
    Column("other_cpus", "beside.other_cpus", "processors that other processes kept busy"),
    Column("idle_cpus", "beside.idle_cpus", "processors without work"),
    Column("steal_cpus", "beside.steal_cpus", "processors that the host took from a virtual machine"),
    Column("involuntary_switches", "beside.involuntary_switches", "switches forced on phaselaw's process", "unread"),
    Column("clock_mhz", "beside.clock_mhz", "the highest clock of some processors after the call", "unread"),
    Column("load_average", "beside.load_average", "the system's load of the last minute"),
    Column("host", "study", "by which of several hosts it was measured (`--ray`)", "optional text"),
    Column("shared_machine", "study", "whether other nodes of its machine measured too (`--share-machine`)", "text"),
    Column("prompt_tokens_claimed", "served.prompt_tokens_claimed", "by the server, where the text can't have so many"),
    Column("model_answered", lambda c: c.timing and c.timing.server.get("model"), "by the server", "optional text"),
    Column("client_cpus", "beside.client_cpus", "processors kept busy by the process that calls, on average"),
)

COLUMNS = tuple(column.name for column in MEASURED)
TR121_COLUMNS, OWN_COLUMNS = COLUMNS[:44], COLUMNS[44:]
"""The 44 columns of TR121's ``metrics.csv``, in its order, and ours."""


def _attributes_of(source: str) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """The columns that are attributes of one source, and what reads all of them at once."""
    values = [(column.name, column.value.split(".", 1)) for column in MEASURED if isinstance(column.value, str)]
    paths = {name: path[1] for name, path in values if path[0] == source and len(path) > 1}
    return tuple(paths), attrgetter(*paths.values())


_ATTRIBUTES = [_attributes_of(source) for source in ("call", "cell", "timing", "served", "beside", "ollama")]
_COMPUTED = [(column.name, column.value) for column in MEASURED if not isinstance(column.value, str)]
_NOTHING: dict[str, Any] = dict.fromkeys(COLUMNS)


def settled_calls(calls: Sequence[Call]) -> list[Call]:
    """The calls of a run in their order, judged together: by model, by its prompt cache; by cell, by server claims."""

    def by_cache(timings: list[Timing], cells: list[Cell]) -> list[Timing]:
        return judged(timings, lone=[cell.concurrency == 1 for cell in cells])

    def by_claims(timings: list[Timing], cells: list[Cell]) -> list[Timing]:
        return settled(timings, cells[0].gen_tokens, lone=cells[0].concurrency == 1)

    done = list(calls)
    for key, judge in ((attrgetter("cell.backend", "cell.model"), by_cache), (attrgetter("cell.key"), by_claims)):
        groups: defaultdict[Any, list[tuple[int, Timing]]] = defaultdict(list)
        for at, call in enumerate(done):
            if call.timing is not None and call.timing.served is not None:
                groups[key(call)].append((at, call.timing))
        for group in groups.values():
            with suppress(ArithmeticError, ValueError):  # what no figure can be made of stays as it came
                found = judge([timing for _, timing in group], [done[at].cell for at, _ in group])
                for (at, _), timing in zip(group, found, strict=True):
                    done[at] = replace(done[at], timing=timing)
    return done


_SIZES = re.compile(r"(?<![a-z0-9.])(a?)(\d+(?:\.\d+)?)([mb])(?![a-z0-9.])", re.IGNORECASE)


def millions_in_name(model: str) -> tuple[float | None, float | None]:
    """Millions of parameters that a model's name says, all of them and the active ones: ``8B``, ``30b-a3b``.

    Nothing where it says several: of ``8x7b`` no total can be told.
    """
    found = [
        (bool(active), float(size) * (1e3 if unit in "bB" else 1.0)) for active, size, unit in _SIZES.findall(model)
    ]
    total, active = ([size for is_active, size in found if is_active == which] for which in (False, True))
    alone = total[0] if len(set(total)) == 1 and total[0] > 0 else None
    return alone, active[0] if alone and len(active) == 1 else None


def rows_of(call: Call, **of_study: Any) -> Iterator[dict[str, Any]]:
    """One row a phase of a call, keyed by `COLUMNS`; the keys that don't apply are ``None``.

    ``of_study`` are columns that the call does not know. A failed call gives its three rows too, with ``status`` and
    ``error`` and no times.
    """
    timing = call.timing
    served = None if timing is None else timing.served
    ollama = timing if served is not None and call.cell.backend_kind == "ollama" else None
    shared: dict[str, Any] = _NOTHING | of_study
    if shared["prompt"] is not None:
        shared["prompt_chars"] = len(shared["prompt"])
    label, counted = shared["params_millions_config"], shared["params_millions_measured"]
    shared["params_millions"] = counted if label is None else label
    if shared["params_millions"] is None:
        shared["params_millions_named"] = millions_in_name(call.cell.model)[0]
    sources = (call, call.cell, timing, served, call.beside, ollama)
    for (names, read), source in zip(_ATTRIBUTES, sources, strict=True):
        if source is not None:
            shared.update(zip(names, read(source), strict=True))
    for name, compute in _COMPUTED:
        shared[name] = compute(call)
    faults = {} if served is None else served.faults
    figures = {} if timing is None else _figures(call.cell, timing)
    if served is not None and call.cell.gen_tokens == 1:
        figures["kv_decode"] = {"status": "not_applicable"}
    for sample_idx, mode in enumerate(PHASES, start=call.call_idx * len(PHASES)):
        row = shared | ({"status": "error", "error": faults[mode]} if mode in faults else figures.get(mode, {}))
        row["mode"], row["sample_idx"] = mode, sample_idx
        yield row


def _figures(cell: Cell, timing: Timing) -> dict[Phase, dict[str, Any]]:
    generated = cell.gen_tokens * cell.batch_size
    latencies = phase_latency_ms(timing, cell.gen_tokens)
    tokens = _by_phase(timing.prompt_tokens_total, generated)
    compute = _by_phase(timing.prompt_tokens * cell.batch_size, generated)
    prefill, decode = timing.prefill_cuda_event_ms, timing.kv_decode_cuda_event_ms
    events = {} if prefill is None or decode is None else _by_phase(prefill, decode)
    return {
        mode: {
            "latency_ms": latency_ms,
            "cuda_event_ms": events.get(mode),
            "tokens_total": tokens[mode],
            "tokens_per_s": tokens_per_s(tokens[mode], latency_ms),
            "tokens_total_compute": compute[mode],
            "tokens_per_s_compute": tokens_per_s(compute[mode], latency_ms),
            "gen_tokens": 0 if mode == "prefill" else generated,
        }
        for mode, latency_ms in latencies.items()
    }
