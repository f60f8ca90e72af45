"""A study: what to measure, as types, and the cells it expands into.

The keys are TR121's (``run_name, gen_tokens, repetitions, warmup_repetitions, seed, scenarios, backends, models``) plus
``order`` and ``axes``. Reading the file, with a line number for each fault, is `phaselaw.study.file`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from phaselaw.errors import names_a_secret
from phaselaw.records import ALL, Cell, Order

SCHEMA_VERSION = 1
"""Version of the study format: raised when a study that was right is no longer, never for a new key."""

MAX_ITEMS = 1000
"""Entries of one list: models, backends, scenarios, values of an axis."""

NAME_PATTERN = r"^(?! )[^\x00-\x1f\x7f-\x9f\u2028\u2029|]+(?<! )$"
DEVICE_PATTERN = r"^(cpu|mps|cuda(:[0-9]{1,4})?)$"
URL_PATTERN = r"^[Hh][Tt][Tt][Pp][Ss]?://[^@/?#\s]+(/[^?#\s]*)?$"
"""What an editor can see of an address; the reader looks closer."""

KEPT_SERVERS = "replicates share the server of {}, with the models it has loaded: only their client is fresh"

_SET_BY_US = {"model", "prompt", "messages", "max_tokens", "max_completion_tokens", "stream", "stream_options", "n"}


def _matching(pattern: str, what: str) -> AfterValidator:
    def checked(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(what)
        return text

    return AfterValidator(checked)


def http_address(text: str) -> str:
    """A server's address; ValueError for what is none, without repeating it: an error must not show a password."""
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        sound = sound and text.isprintable() and " " not in text
    except ValueError:
        sound = False
    if not sound or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("should be http://HOST:PORT (or https, with a path), without user, password, query or blanks")
    return text


def _without(refused: Mapping[str, str]) -> AfterValidator:
    """Options without these keys, each with the reason, and without any that is called as secrets are."""

    def checked(options: dict[str, Any]) -> dict[str, Any]:
        for key in sorted(refused.keys() & options):
            raise ValueError(refused[key])
        for key in filter(names_a_secret, options):
            raise ValueError(f"{key} would be kept with the run; a key belongs in the environment, see api_key_env")
        return options

    return AfterValidator(checked)


T = TypeVar("T")


def key(default: T, meaning: str, **limits: Any) -> T:
    """A key of a study that may be left out."""
    found: T = Field(default=default, description=meaning, **limits)
    return found


Some = Annotated[tuple[T, ...], Field(min_length=1, max_length=MAX_ITEMS, strict=False)]
Name = Annotated[
    str,
    Field(min_length=1, max_length=200, json_schema_extra={"pattern": NAME_PATTERN}),
    _matching(NAME_PATTERN, "a name holds no control characters, no | and no blank at its ends"),
]
Device = Annotated[
    str,
    Field(json_schema_extra={"pattern": DEVICE_PATTERN}),
    _matching(DEVICE_PATTERN, "should be cpu, cuda, cuda:N or mps"),
]
ServerUrl = Annotated[str, Field(json_schema_extra={"pattern": URL_PATTERN}), AfterValidator(http_address)]
Text = Annotated[str, Field(min_length=1)]
Prompt = Annotated[Text, Field(max_length=1_000_000)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Values = Some[Count] | None
Positive = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Exponent = Annotated[float, Field(ge=-4, le=4)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)]
Deviation = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Clients = Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=1, max_length=100, strict=False)]
Exported = Literal["f32", "f16", "q8_0", "q4_0"]
CacheFormat = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
Kind = Literal["hf", "simulated", "ollama", "llamacpp", "openai"]
Options = dict[str, str | int | float | bool | list[str]]
OllamaOptions = Annotated[Options, _without({"num_predict": "num_predict is the study's gen_tokens; give that"})]
OpenaiExtra = Annotated[Options, _without({key: f"{key} is set by phaselaw; leave it away" for key in _SET_BY_US})]


class Strict(BaseModel):
    """Base of every part of a study: immutable, nothing coerced, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class NamedBackend(Strict):
    """What every backend has."""

    name: Name = Field(description="Name of the backend, unique within the study.")


class HfBackend(NamedBackend):
    """Hugging Face transformers in this process."""

    kind: Literal["hf"] = Field(description="Hugging Face transformers, in process.")
    device: Device = key("cpu", "`cpu`, `cuda`, `cuda:N` or `mps`.")
    dtype: Literal["fp32", "fp16", "bf16"] = key("fp32", "Number format of the weights.")
    batch_size: Count = key(1, "Sequences in one call.")
    threads: Count | None = key(None, "CPU threads; left out: the library's own choice. The manifest says how many.")
    prefill_logits: Literal["last", "all"] = key(
        "last", "Positions whose logits a prefill computes: the `last`, as servers do, or `all`, as TR121 did."
    )
    execution: Literal["eager", "compile", "cuda_graph"] = key(
        "eager", "`compile`: by `torch.compile`; `cuda_graph`: steps captured and replayed. Counted, else an error."
    )
    fresh_process: bool = key(
        False, "Measure each model by a process of its own, so that its peak memory is its own; no rounds over models."
    )
    keep_loaded: Count | Literal["auto", "all"] = key(
        "auto", "Models loaded at once: `all`, so many, or as many as surely fit the memory (`auto`)."
    )
    memory_mb: Positive | None = key(
        None, "For `auto`: what all weights may take, in MB of 2^20 bytes; left out: 80 % of what is free at the start."
    )


class SimulatedBackend(NamedBackend):
    """Seeded latencies from a stated law: the tests' ground truth, and what ``--dry-run`` uses.

    ``step_ms = overhead_ms + params_ms * params_millions ** params_exponent * n_layer ** depth_exponent``, where with
    ``threads`` the second part takes ``serial_share + (1 - serial_share) / threads`` of its time. A decode step takes
    ``step_ms + sequence_ms * batch + context_ms * batch * context`` (context: tokens in the cache when it begins), a
    prefill ``prefill_steps * step_ms + prompt_ms * batch * tokens + prompt_pair_ms * batch * tokens ** 2``; all of it
    times noise.
    """

    kind: Literal["simulated"] = Field(description="Simulated latencies of a known law; not a measurement.")
    batch_size: Count = key(1, "Sequences in one call.")
    overhead_ms: Milliseconds = key(1.0, "The constant part of a decode step.")
    params_ms: Milliseconds = key(1.0, "Factor of the part that grows.")
    params_exponent: Exponent = key(0.5, "Exponent of the parameters, in millions.")
    depth_exponent: Exponent = key(0.0, "Exponent of the layers.")
    prefill_steps: Annotated[float, Field(gt=0, le=1e6)] = key(1.2, "What a prefill costs, in decode steps.")
    sequence_ms: Milliseconds = key(0.0, "Added to a decode step for each sequence of the batch.")
    context_ms: Milliseconds = key(0.0, "The same for each token in each sequence's cache.")
    prompt_ms: Milliseconds = key(0.0, "Added to a prefill for each prompt token of the batch.")
    prompt_pair_ms: Milliseconds = key(0.0, "The same for each pair of tokens of a prompt: attention's square.")
    threads: Count | None = key(None, "CPU threads; left out: one.")
    serial_share: Share = key(1.0, "Share of the part that grows which more threads don't shorten.")
    model_scatter: Deviation = key(0.0, "Standard deviation between models, of the natural log of latency.")
    run_noise: Deviation = key(0.0, "The same between replicates, shared by all models.")
    model_run_noise: Deviation = key(0.0, "The same between replicates, of each model by itself.")
    round_noise: Deviation = key(0.0, "The same between rounds.")
    call_noise: Deviation = key(0.02, "The same between calls.")
    cold_start_ms: Milliseconds = key(0.0, "Added to the first prefill after a load.")
    early_stop_rate: Share = key(0.0, "Share of calls that stop before the budget.")
    failure_rate: Share = key(0.0, "Share of calls that fail.")
    real_time: bool = key(False, "Sleep for the simulated time, to try the display or an interruption.")


class ServedBackend(NamedBackend):
    """What every backend that is a server shares."""

    batch_size: Literal[1] = key(1, "Always 1: batching is the server's.")
    connect_timeout_s: Seconds = key(10.0, "Longest connection set-up.")
    idle_timeout_s: Seconds = key(300.0, "Longest silence of the server, a model's load included.")
    timeout_s: Seconds = key(1800.0, "Longest call.")
    reconnect_s: Annotated[float, Field(ge=0, le=86_400)] = key(
        30.0, "How long a server that is not ours and was there is waited for, once each time that it is gone."
    )
    concurrency: Clients = key((1,), "Clients that call at once, each number a cell of its own: see Sweeps.")
    ca_file: str | None = key(None, "Path of certificates to trust for `https`, in PEM; left out: the system's.")
    optional: bool = key(False, "Skip it, with a notice, where its server or a model of it is not here.")


class OllamaBackend(ServedBackend):
    """An Ollama server."""

    kind: Literal["ollama"] = Field(description="An Ollama server.")
    url: ServerUrl | None = key(None, "`http://HOST:PORT`; left out: `OLLAMA_HOST`, as Ollama's clients read it.")
    options: OllamaOptions = Field(
        default_factory=dict, description="Sent with each request, over temperature 0, top_p 1 and the study's seed."
    )
    keep_alive: str | int | None = key(None, "How long the server keeps the model loaded.")
    context_length: Count | None = key(
        None, "Context in tokens (`num_ctx`); left out: its own. A cut prompt is an error row."
    )
    raw: bool = key(False, "Send prompts without the model's template.")
    think: bool | str | None = key(None, "Have a thinking model think, or not; left out: as it does by itself.")
    cold: bool = key(False, "Unload the model before each call: load, prefill and decode are timed apart.")


class LlamacppBackend(ServedBackend):
    """llama.cpp's ``llama-server``: one that phaselaw starts for each model, or one that runs already."""

    kind: Literal["llamacpp"] = Field(description="llama.cpp's server.")
    url: ServerUrl | None = key(None, "A server that runs already; left out: one is started.")
    server: Text | None = key(None, "Path of llama-server, or `xllamacpp`; left out: PATH's, else the package's.")
    weights: Exported = key("f32", "How a ladder model or GPT-2 folder is exported; a GGUF file is as it is.")
    threads: Count | None = key(None, "CPU threads; left out: the server's own choice.")
    context_length: Count | None = key(None, "Context in tokens; left out: the model's own.")
    batch: Count | None = key(None, "Prompt tokens handed over at once (`--batch-size`).")
    micro_batch: Count | None = key(None, "Prompt tokens computed at once (`--ubatch-size`).")
    gpu_layers: int | None = key(None, "Layers put on the GPU; left out: the server's own choice.", ge=0, le=10_000)
    kv_cache: CacheFormat | None = key(None, "Number format of the KV cache; left out: the server's (f16).")
    flash_attention: bool | None = key(None, "Left out: the server's own choice.")
    ignore_eos: bool = key(True, "Generate the whole budget; false: models may stop early.")
    chat_template: bool = key(False, "Put prompts of text into the model's chat template.")
    one_at_a_time: bool = key(False, "Stop a model's server before the next one starts: slower, needs less memory.")
    start_timeout_s: Seconds = key(600.0, "Longest start of a server, its load included.")

    @model_validator(mode="after")
    def _settings_are_of_a_server_we_start(self) -> Self:
        ours = "server threads context_length batch micro_batch gpu_layers kv_cache flash_attention"
        for name in ours.split() if self.url is not None else ():
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is set where a server is started; leave it or url out")
        return self


class OpenaiBackend(ServedBackend):
    """A server that speaks OpenAI's protocol: vLLM, SGLang, llama-server, LM Studio and others."""

    kind: Literal["openai"] = Field(description="A server that speaks OpenAI's protocol.")
    url: ServerUrl | None = key(None, "`http://HOST:PORT/v1`; left out: `OPENAI_BASE_URL`.")
    api: Literal["completions", "chat"] = key("completions", "Which of the two is called.")
    api_key_env: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")] = key(
        "OPENAI_API_KEY", "Environment variable that holds the key, if any."
    )
    ignore_eos: bool = key(True, "Ask for the whole budget where the server knows how.")
    extra: OpenaiExtra = Field(
        default_factory=dict, description="More keys of the request, over temperature 0, top_p 1 and the study's seed."
    )
    retries: int = key(0, "More tries of a call that was turned away; its row is an error all the same.", ge=0, le=10)


AnyBackend = HfBackend | SimulatedBackend | OllamaBackend | LlamacppBackend | OpenaiBackend
Backend = Annotated[AnyBackend, Field(discriminator="kind")]


class Scenario(Strict):
    """A named prompt: a text, different texts of one batch, or a synthetic prompt of an exact number of tokens."""

    name: Name = Field(description="Name of the scenario, unique within the study.")
    prompt: Prompt | None = key(None, "The prompt as text; its tokens are counted.")
    prompts: Some[Prompt] | None = key(
        None,
        "Instead of one text: a text for each sequence of a batch, padded to the longest; engines in process only.",
    )
    prompt_tokens: Count | None = key(None, "Instead of a text: a synthetic prompt of exactly this many tokens.")

    @model_validator(mode="after")
    def _one_kind_of_prompt(self) -> Self:
        if sum(each is not None for each in (self.prompt, self.prompts, self.prompt_tokens)) != 1:
            raise ValueError("give exactly one of prompt (a text), prompts (texts) and prompt_tokens (a count)")
        if self.name == ALL:
            raise ValueError(f"{ALL} is the name of figures over all scenarios: give another")
        return self

    @property
    def text(self) -> str | None:
        """What is asked, as one text; ``None`` for a synthetic prompt."""
        return self.prompt if self.prompts is None else "\n".join(self.prompts)


class ModelEntry(Strict):
    """A model to measure; it runs on the backends of its kind."""

    name: Name = Field(description="`models/NAME` of the ladder, the path of a folder, or the engine's own name.")
    kind: Kind = Field(description="It runs on the backends of this kind.")
    params_millions: Positive | None = key(None, "A label, used only where parameters can't be measured.")
    n_layer: Count | None = key(None, "Layers of a simulated model.")
    backends: Some[Name] | None = key(None, "Only on these backends of its kind; left out: on all of them.")
    same_as: Name | None = key(None, "The name that these weights have on another engine, to compare the two.")

    @property
    def identity(self) -> str:
        """What names these weights on every engine: models of one identity are compared as one model."""
        return self.same_as or self.name

    def runs_on(self, backend: AnyBackend) -> bool:
        """Whether a backend is one of this model's."""
        return backend.kind == self.kind and (self.backends is None or backend.name in self.backends)


class Axes(Strict):
    """Values to sweep over, each a cell of its own; several axes make a grid."""

    gen_tokens: Values = key(None, "Output tokens; they replace the study's `gen_tokens`.")
    batch_size: Values = key(None, "Sequences in one call, on engines in process; they replace `batch_size`.")
    prompt_tokens: Values = key(None, "Synthetic prompts `prompt_N` of N tokens, in place of the scenarios.")
    threads: Values = key(None, "CPU threads where they are ours to set; each makes a backend `NAME_threadsN`.")
    concurrency: Clients | None = key(None, "Clients of the served backends; they replace each one's `concurrency`.")


class Study(Strict):
    """What to measure: every model on every backend of its kind, under every scenario and decode budget."""

    run_name: Name = Field(description="Name of the study; runs go to `runs/RUN_NAME/TIME`.")
    gen_tokens: Count = key(64, "Decode steps of each call: always this many, whatever the model would say.")
    repetitions: Count = key(3, "Measured calls of each cell; five or more make an interval worth reading.")
    warmup_repetitions: int = key(
        1, "Calls of each cell before the repetitions: kept, left out of fits.", ge=0, le=1000
    )
    replicates: Annotated[int, Field(ge=1, le=1000)] = key(
        1,
        "How often all of it is measured, each time by a fresh process; two or more tell what another run would give.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = key(42, "Decides the order of calls and the tokens of prompts.")
    order: Order = key("rounds", "Rounds over all cells, or a cell's calls back to back: see Order.")
    axes: Axes = Field(default_factory=Axes, description="Values to sweep over: see Sweeps.")
    scenarios: Some[Scenario] = Field(description="What a model is given; not needed with `axes.prompt_tokens`.")
    backends: Some[Backend] = Field(description="What runs the models.")
    models: Some[ModelEntry] = Field(description="What is measured.")

    def budgets(self) -> tuple[int, ...]:
        """The decode budgets, in tokens: the axis where there is one, else ``gen_tokens``."""
        return self.axes.gen_tokens or (self.gen_tokens,)

    def cells(self) -> tuple[Cell, ...]:
        """Every cell in the file's order: models x backends x scenarios x budgets x batch sizes x clients."""
        return tuple(
            Cell(
                backend=backend.name,
                backend_kind=backend.kind,
                model=model.name,
                scenario=scenario.name,
                batch_size=batch_size,
                gen_tokens=budget,
                concurrency=clients,
            )
            for model in self.models
            for backend in self.backends
            if model.runs_on(backend)
            for scenario in self.scenarios
            for budget in self.budgets()
            for batch_size in self._batch_sizes(backend, scenario)
            for clients in (backend.concurrency if isinstance(backend, ServedBackend) else (1,))
        )

    def _batch_sizes(self, backend: AnyBackend, scenario: Scenario) -> tuple[int, ...]:
        """A backend's batch sizes: as many as a scenario's prompts, the axis, or its own; a server's are its own."""
        if scenario.prompts is not None:
            return (len(scenario.prompts),)
        own: tuple[int, ...] = (backend.batch_size,)
        return own if isinstance(backend, ServedBackend) else self.axes.batch_size or own

    def calls_planned(self) -> int:
        """How many calls the whole study makes: each cell's warmups and repetitions, by its clients, in replicates."""
        calls_of_a_client = self.replicates * (self.warmup_repetitions + self.repetitions)
        return sum(cell.concurrency for cell in self.cells()) * calls_of_a_client

    def kept_servers(self) -> tuple[str, ...]:
        """Backends of which replicates share the server with its loaded models: only their client is fresh.

        OpenAI's protocol has no unloading; of llama.cpp's servers only one of ours is started anew.
        """
        theirs = (b.name for b in self.backends if b.kind == "openai" or (b.kind == "llamacpp" and b.url is not None))
        return tuple(theirs if self.replicates > 1 else ())

    def backend(self, name: str) -> AnyBackend:
        """The backend of this name; KeyError where there is none."""
        return {backend.name: backend for backend in self.backends}[name]

    def model(self, name: str, kind: str) -> ModelEntry:
        """The model of this name for this kind of backend; KeyError where there is none."""
        entries: dict[tuple[str, str], ModelEntry] = {(model.name, model.kind): model for model in self.models}
        return entries[name, kind]

    def scenario(self, name: str) -> Scenario:
        """The scenario of this name; KeyError where there is none."""
        return {scenario.name: scenario for scenario in self.scenarios}[name]

    def models_of(self, backend: str) -> tuple[ModelEntry, ...]:
        return tuple(model for model in self.models if model.runs_on(self.backend(backend)))

    def resolved(self) -> dict[str, Any]:
        """The whole study as plain JSON types, defaults and resolved names filled in."""
        return self.model_dump(mode="json")

    @property
    def sha256(self) -> str:
        """SHA-256 of the resolved study's canonical JSON: equal for studies that ask the same."""
        canonical = json.dumps(self.resolved(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def as_simulated(self, sizes: Mapping[str, tuple[float, int]] = MappingProxyType({})) -> Self:
        """The same cells on simulated engines: every backend keeps its name and batch size, every model its name.

        ``sizes`` are the ladder's millions of parameters and layers by name, for models without labels. A server is
        simulated as one client: its cells of several clients become one. A backend that is simulated already keeps its
        law.
        """
        backends = []
        for each in self.backends:
            if not isinstance(each, SimulatedBackend):
                kept: dict[str, Any] = {
                    "name": each.name,
                    "batch_size": each.batch_size,
                    "threads": getattr(each, "threads", None),
                }
                each = SimulatedBackend(**kept, kind="simulated", cold_start_ms=50)
            backends.append(each)
        by_name: dict[str, list[ModelEntry]] = {}
        for model in self.models:
            by_name.setdefault(model.name, []).append(model)
        models = []
        for first, *others in by_name.values():
            on = tuple(each.name for each in self.backends if any(entry.runs_on(each) for entry in (first, *others)))
            params, layers = sizes.get(first.identity.removeprefix("models/"), (None, None))
            known = {"params_millions": first.params_millions or params, "n_layer": first.n_layer or layers}
            if on:
                models.append(first.model_copy(update={"kind": "simulated", "backends": on, **known}))
        return self.model_copy(update={"backends": tuple(backends), "models": tuple(models)})
