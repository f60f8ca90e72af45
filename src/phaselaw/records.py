"""The vocabulary: what is asked of an engine, what comes back, and what is kept of each call.

Every type is frozen and keyword-only; missing is ``None``, never ``-1`` or ``""``; every quantity has its unit in
its name. Nothing here prints, saves or computes a metric: rows are made from calls in `phaselaw.rundir.columns`, which
says what each measured field means where nothing stands beside it here.

This module imports nothing heavy.
"""

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

if TYPE_CHECKING:
    import polars as pl

Phase = Literal["prefill", "kv_decode", "e2e_kv"]
PHASES: tuple[Phase, ...] = ("prefill", "kv_decode", "e2e_kv")
ALL = "__all__"
"""The ``scenario`` of figures over all scenarios, which none may be named."""

Order = Literal["rounds", "cells"]
"""``rounds``: repetition r of every cell before r + 1 of any; ``cells``: a cell's calls back to back (TR121)."""

DecodeStepBasis = Literal["client", "client_usage", "bursts", "server"]
"""``client``: arrivals, each a token; ``client_usage``: arrivals, tokens as the server counts; ``bursts``: the same, of
arrivals that share instants; ``server``: its own."""

CacheCheck = Literal["fresh", "found", "undecidable", "off"]
"""Whether a prompt was answered from the server's cache; ``off``: the server was told to have none, and says so."""

LARGEST = 10**18
"""A number from here on was never measured, and what is computed from it could overflow."""

Count = Annotated[int, Field(gt=-LARGEST, lt=LARGEST)]
Number = Annotated[float, Field(gt=-LARGEST, lt=LARGEST, allow_inf_nan=False)] | Count
"""A number of a record; one that was written as 12 is read as 12, not as 12.0."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One backend x model x scenario x batch size x decode budget: what one latency statistic is about."""

    backend: str
    backend_kind: str
    model: str
    scenario: str
    batch_size: Count
    gen_tokens: Count
    concurrency: Count = 1
    """Clients that call a served engine at once."""

    @property
    def key(self) -> str:
        """A readable identity, unique within a run."""
        parts = [self.backend, self.model, self.scenario, f"bs{self.batch_size}", f"gen{self.gen_tokens}"]
        return "|".join(parts if self.concurrency == 1 else [*parts, f"clients{self.concurrency}"])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlannedCall:
    """One call of the schedule, known before anything runs; ``call_id`` survives a resume."""

    call_id: str
    cell: Cell
    task_idx: Count
    """Index of the cell in the study's seeded cell order."""
    is_warmup: bool
    warmup_idx: Count | None
    rep: Count | None
    """Repetition, which under ``order: rounds`` is also the round; ``None`` on warmups."""
    client_idx: Count = 0
    """Which of a cell's clients makes this call."""
    replicate: Count = 0
    """Which of the study's replicates it belongs to; ``rep`` counts within one."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What an engine is asked to do once: prefill a prompt, then ``gen_tokens`` decode steps, never fewer.

    Exactly one of ``prompt`` (text), ``prompts`` (a text for each sequence) and ``prompt_tokens`` (a synthetic prompt
    of exactly that many tokens) is set.
    """

    prompt: str | None
    prompt_tokens: int | None
    gen_tokens: int
    batch_size: int
    study_seed: int
    """The study's seed: what a synthetic prompt is drawn from, the same for each call of a scenario."""
    seed: int
    """A seed of this call alone."""
    round: int | None
    """The repetition this call belongs to; ``None`` in a warmup."""
    replicate: int = 0
    prompts: tuple[str, ...] | None = None
    before_send: Callable[[], object] | None = None
    """What a served engine calls between connecting and sending: it waits there for the other clients."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """What one call took, as the engine observed it. An engine reports raw times and counts, never a metric.

    Token counts are those of one sequence of the batch, unless the name says ``total``.
    """

    prefill_ms: Number | None
    """``None`` where a served engine gave no figure that can be one."""
    kv_decode_ms: Number | None
    """Time of the decode steps that ran; on a served engine, what its server claims for them (absent: ``None``)."""
    prompt_tokens: Count
    """Prompt tokens of one sequence (the longest, in a padded batch)."""
    prompt_tokens_total: Count
    """Prompt tokens of the whole batch, padding left out."""
    gen_tokens_raw: Count
    """Tokens generated for each sequence; fewer than asked where the model stopped early."""
    decode_steps_ms: tuple[Number, ...] | None = None
    """Each decode step's time, in order, where the engine can tell them apart."""
    prefill_cuda_event_ms: Number | None = None
    kv_decode_cuda_event_ms: Number | None = None
    gpu_peak_mb: Number | None = None
    rss_peak_mb: Number | None = None
    done_reason: str | None = None
    """Why generation ended: ``length`` or ``stop``; ``None`` where the engine never stops early."""
    output_sha256: str | None = None
    server: Mapping[str, Number | str | None] = dataclasses.field(default_factory=dict)
    """What a server said of itself, by its own field names with units: claims, kept raw."""
    served: "Served | None" = None
    """What the client of a served engine saw; ``None`` where the model runs in this process."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """One call of a served engine by the client's clock, and what is known of its worth (method: section 2)."""

    sent_at_ms: Number
    """When it was sent, by the process's monotonic clock, so that calls made at once can be laid side by side."""
    ttft_ms: Number
    """First non-empty token minus send; holds the load and the wait of a call that had them."""
    e2e_ms: Number
    wall_ms: Number
    connect_ms: Number | None
    """Connection set-up before the send; ``None`` where a kept connection served."""
    arrivals_ms: tuple[Number, ...]
    """Arrival of each non-empty chunk, minus send."""
    decode_step_ms: Number | None
    """One decode step; ``None`` where none can be told. ``kv_decode`` is this times the budget."""
    decode_step_basis: DecodeStepBasis | None
    server_times: Literal["none", "prefill", "both"] | None = None
    """The phases that this engine's server times, where the client's clock does not contradict it."""
    prefill_ms_server: Number | None = None
    """The server's prefill time, as are the two below: its claims, whatever serves (`phaselaw.servers.streams`)."""
    decode_ms_server: Number | None = None
    tokens_counted: Count | None = None
    prompt_tokens_claimed: Count | None = None
    """The server's count of the prompt's tokens where its text can't have so many: it does not serve."""
    tokens_between: Count | None = None
    """Tokens after the first event up to the last, where each event says how many there were by then."""
    tokens_unseen: Count | None = None
    """Of those counted, tokens of reasoning, by the server: where no hidden text came, no event stands for them."""
    first_text_share: Number | None = None
    """What of the reply's characters came with the first event."""
    events_repeated: Count = 0
    """Events whose text had come before, as hidden reasoning: no arrivals."""
    false_claims: str | None = None
    first_event_tokens: Number | None = None
    decode_step_ms_client: Number | None = None
    """The span of the arrivals over the tokens that came after the first of them."""
    decode_step_ms_server: Number | None = None
    """The server's decode time over ``gen_tokens_raw - 1`` steps."""
    queue_ms: Number | None = None
    """TTFT minus the server's load and prefill: the wait for a slot, and a few ms of overhead. Never negative."""
    load_ms: Number | None = None
    """Load time inside this call, as the server says; not zero on some warm calls."""
    model_was_loaded: bool | None = None
    cache_check: CacheCheck | None = None
    cache_reason: str | None = None
    head_cached: bool = False
    """Whether a chat template's head may have been cached, though its tokens are counted."""
    prefill_basis: Literal["server", "ttft"] = "server"
    tokens_basis: Literal["server", "estimated"] = "server"
    thinking_tokens: Count | None = None
    """Chunks of hidden reasoning among the arrivals; ``None`` where the model has none."""
    faults: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Phases that this call can't stand for, each with the reason: their rows are error rows."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A loaded model, measured: what was counted or what the server stated exactly, never a label."""

    params_millions_measured: Number | None
    n_layer: Count | None = None
    n_embd: Count | None = None
    n_head: Count | None = None
    n_inner: Count | None = None
    vocab_size: Count | None = None
    n_positions: Count | None = None
    n_kv_head: Count | None = None
    """Heads of keys and values, where they are fewer than the heads."""
    head_dim: Count | None = None
    n_experts: Count | None = None
    """Experts of a layer, in a mixture of experts only."""
    n_experts_used: Count | None = None
    """Those that one token is sent to."""
    expert_params: Count | None = None
    """Parameters of all experts; shared ones, which every token reads, are no part of it."""
    expert_bytes: Count | None = None
    kv_cache: str | None = None
    """Values that a sequence of n tokens holds, in words (`phaselaw.machine.model_config`), or why it is not known."""
    lookup_params: Count | None = None
    """Parameters of tables of which a token reads but a row."""
    lookup_bytes: Count | None = None
    family: str | None = None
    quantization_level: str | None = None
    parameter_size_raw: str | None = None
    weights_bytes: Count | None = None
    dtype: str | None = None
    device: str | None = None
    config_path: str | None = None
    weights_sha256: str | None = None

    @property
    def params_millions_active(self) -> float | None:
        """Parameters that one token is computed with or looks up: of experts those that it is sent to."""
        total, experts = self.params_millions_measured, (self.expert_params or 0) / 1e6
        if total is None or (self.n_experts and not (experts and self.n_experts_used)):
            return None
        return active_params(total, experts, self.n_experts, self.n_experts_used)


def active_params(total: float, experts: float, n_experts: int | None, used: int | None) -> float:
    """Parameters that one token needs, of a model whose experts have so many of them all together."""
    return total - experts * (1 - (used or 0) / n_experts) if n_experts else total


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EngineInfo:
    """An engine and its settings as they really are (threads in force, library versions): goes into the manifest."""

    kind: str
    name: str
    version: str | None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelLoaded:
    """A model was loaded on a backend: journal event ``model``."""

    backend: str
    model: str
    process_idx: Count
    load_ms: Number
    info: ModelInfo
    engine: EngineInfo


COLD_AGAIN = "-cold"
"""In the id of a call beyond the plan: the first one of a model that had to go and was loaded again."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rewarmed:
    """A cell that a resumed process entered again was warmed up again: journal event ``rewarmed``, not a row."""

    cell_key: str
    process_idx: Count
    calls: Count
    error: str | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """What the machine did beside a call, in processors kept busy on average; ``None`` is what the system won't tell.

    Of the processors that phaselaw may use; together they are all of these.
    """

    own_cpus: Number | None
    """By phaselaw, the servers that it started, and the local server that it calls."""
    other_cpus: Number | None
    idle_cpus: Number | None
    steal_cpus: Number | None
    involuntary_switches: Count | None
    clock_mhz: Number | None
    load_average: Number | None
    """Processes that ran or wanted to, over the last minute."""
    client_cpus: Number | None = None
    """By this process alone: it reads what servers stream on one processor."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Call(PlannedCall):
    """One timed generation as it is kept: journal event ``call``. A failed one has ``timing=None`` and ``error``."""

    call_idx: Count
    """Execution order within the run, counted over all its processes."""
    status: Literal["ok", "error"]
    error: str | None
    started_at_unix: Number
    process_idx: Count
    """Number of the process that measured this call: 0, then one more for each replicate and each resume."""
    calls_since_process_start: Count
    """Calls this process made before this one: 0 is a cold process."""
    calls_since_model_load: Count
    calls_since_shape_first_seen: Count
    """Earlier calls of this model with the same prompt, batch size and budget: 0 is a cold shape."""
    load_ms: Number | None
    timing: Timing | None
    queue_delay_ms: Number | None = None
    """Sent minus scheduled, by the client; known where several clients start together."""
    achieved_concurrency: Number | None = None
    """Mean number of calls under way while this call's group ran; the asked one is the cell's."""
    outages: Count = 0
    beside: Beside | None = None
    """What else the machine did, from before this call's group was sent until it had ended."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BackendEnded:
    """A backend gave the same error again and again, and is called no more: journal event ``backend_ended``."""

    backend: str
    process_idx: Count
    error: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ServerAwaited:
    """A server that is not ours is gone and waited for: journal event ``server_awaited``."""

    backend: str
    process_idx: Count
    at_most_s: Number


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Abandoned:
    """A host was lost with a replicate that was not whole yet: journal event ``abandoned``.

    What was measured of that replicate stays, and counts in no figure; all of it is measured anew.
    """

    processes: tuple[Count, ...]
    """Those that measured it; they measured nothing else."""
    why: str


Event = ModelLoaded | Rewarmed | BackendEnded | ServerAwaited | Abandoned | Call
"""What happens in a run, as it is kept."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """A kind of request: the tokens of its prompt and of its answer, and its share of all requests."""

    name: str
    prompt_tokens: float
    output_tokens: float
    share: float = 1.0
    """Relative to the other kinds; what they sum to does not matter."""
    cached_share: float = 0.0
    """Share of the prompt's tokens that a prompt cache holds already."""

    @property
    def tokens(self) -> float:
        """Tokens of one request, prompt and answer."""
        return self.prompt_tokens + self.output_tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One run directory, or file, that rows were read from."""

    run_id: str
    """Its manifest's ``run_id``, else the name of its folder or file; unique among the runs of a pool."""
    path: Path
    manifest: dict[str, Any]
    """Empty where it has none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run, or several of one study pooled: ``rows`` one a phase and call, ``models`` one a backend and model."""

    path: Path
    rows: "pl.DataFrame"
    """The columns that `phaselaw.rundir.read` requires and its numbers (floats; batch size and decode budget as
    integers), ``is_warmup``, ``model_kind``, ``params_millions_effective``, ``run`` (the run's id), ``replicate``;
    others as read."""
    models: "pl.DataFrame"
    """``resolved_model_params.csv``, empty where the run has none."""
    manifest: dict[str, Any]
    """The first run's, where several are pooled (all of them are in ``sources``); empty where it has none."""
    sources: tuple[Source, ...] = ()
    """The runs that ``rows`` are from, in the order given."""
    notes: tuple[str, ...] = ()
    """What a reader must know of the runs and of how they were put together."""
    unfinished: tuple[str, ...] = ()
    """Those of the notes, the first, that say which of the runs lack calls."""
    parts: "tuple[Run, ...]" = ()
    """Of a folder of runs ``gen_N`` each of these alone, for what is told by the order of calls."""

    @property
    def order(self) -> str:
        """The order the calls were made in: ``rounds`` where every manifest says so, else ``cells`` (TR121's)."""
        manifests = [source.manifest for source in self.sources] or [self.manifest]
        orders = {manifest.get("order") or "cells" for manifest in manifests}
        return orders.pop() if len(orders) == 1 else "cells"


def finite(value: float | None) -> float | None:
    """A number; ``None`` where it is missing, infinite or no number."""
    return value if value is not None and math.isfinite(value) else None


def duration(seconds: float) -> str:
    """A time in words, in the unit that suits its size: ``75 s``, ``2.5 min``."""
    units = ((1, "s"), (60, "min"), (3600, "h"), (86_400, "days"))
    size, unit = next((one for one, after in pairwise(units) if seconds < 2 * after[0]), units[-1])
    return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"


def to_jsonable(record: Any) -> dict[str, Any]:
    """A record as plain JSON types, nested records included; it copies no values, for speed."""
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: to_jsonable(value) if dataclasses.is_dataclass(value) else value for name, value in values.items()}


def from_jsonable(kind: type[T], data: Mapping[str, Any]) -> T:
    """The record that `to_jsonable` wrote; keys that this version doesn't know are ignored (newer writers).

    What of a text is no UTF-8 is read as `phaselaw.files.raw_text` writes it into tables. Raises ValueError for a value
    that is not of its field's type, and for numbers that no table can hold; an engine's settings may hold any.
    """
    try:
        written = _SURROGATE.sub(lambda each: rf"\\u{ord(each[0]):x}", json.dumps(data, ensure_ascii=False))
        record: T = _reader(kind).validate_json(written, strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])).removesuffix(".constrained-float")  # a Number's first kind
        raise ValueError(f"{place}: {fault['msg']}") from None
    return record


_SURROGATE = re.compile("[\ud800-\udfff]")
_reader: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)
