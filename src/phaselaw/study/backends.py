"""The backends of a study, one class an engine, and the checked values that a study is made of."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

NAME_PATTERN = r"^(?! )[^\x00-\x1f\x7f-\x9f\u2028\u2029|]+(?<! )$"
DEVICE_PATTERN = r"^(cpu|mps|cuda(:[0-9]{1,4})?)$"
URL_PATTERN = r"^[Hh][Tt][Tt][Pp][Ss]?://[^@/?#\s]+(/[^?#\s]*)?$"
"""What an editor can see of an address; the reader looks closer."""


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError("a name holds no control characters, no | and no blank at its ends")
    return text


def _device(text: str) -> str:
    if not re.fullmatch(DEVICE_PATTERN, text):
        raise ValueError("should be cpu, cuda, cuda:N or mps")
    return text


def _http_address(text: str) -> str:
    """Refuse what is no server's address, without repeating it: an error must not show a password."""
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        sound = sound and text.isprintable() and " " not in text
    except ValueError:
        sound = False
    if not sound or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("should be http://HOST:PORT (or https, with a path), without user, password, query or blanks")
    return text


def _ollama_options(options: dict[str, str | int | float | bool | list[str]]) -> dict[str, Any]:
    if "num_predict" in options:
        raise ValueError("num_predict is the study's gen_tokens; give that")
    return options


def _openai_extra(extra: dict[str, str | int | float | bool | list[str]]) -> dict[str, Any]:
    ours = {"model", "prompt", "messages", "max_tokens", "max_completion_tokens", "stream", "stream_options", "n"}
    if taken := sorted(ours & set(extra)):
        raise ValueError(f"{taken[0]} is set by phaselaw; leave it away")
    return extra


Name = Annotated[
    str, Field(min_length=1, max_length=200, json_schema_extra={"pattern": NAME_PATTERN}), AfterValidator(_name)
]
Device = Annotated[str, Field(json_schema_extra={"pattern": DEVICE_PATTERN}), AfterValidator(_device)]
ServerUrl = Annotated[str, Field(json_schema_extra={"pattern": URL_PATTERN}), AfterValidator(_http_address)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)]
Clients = Annotated[int, Field(ge=1, le=1024)]
Scalar = str | int | float | bool
OllamaOptions = Annotated[dict[str, Scalar | list[str]], AfterValidator(_ollama_options)]
OpenaiExtra = Annotated[dict[str, Scalar | list[str]], AfterValidator(_openai_extra)]
Deviation = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]


class Strict(BaseModel):
    """Base of every part of a study: immutable, nothing coerced, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class HfBackend(Strict):
    """Hugging Face transformers in this process."""

    name: Name = Field(description="Name of the backend, unique within the study.")
    kind: Literal["hf"] = Field(description="Hugging Face transformers, in process.")
    device: Device = Field(default="cpu", description="cpu, cuda, cuda:N or mps.")
    dtype: Literal["fp32", "fp16", "bf16"] = Field(default="fp32", description="Number format of the weights.")
    batch_size: Count = Field(default=1, description="Sequences in one call.")
    threads: Count | None = Field(default=None, description="CPU threads; left out: the library's own choice.")


class SimulatedBackend(Strict):
    """Seeded latencies from a stated law: the tests' ground truth, and what ``--dry-run`` uses.

    ``step_ms = overhead_ms + params_ms * params_millions ** params_exponent * n_layer ** depth_exponent``, where with
    ``threads`` the second part takes ``serial_share + (1 - serial_share) / threads`` of its time. A decode step takes
    ``step_ms + sequence_ms * batch + context_ms * batch * context`` (context: tokens in the cache when it begins), a
    prefill ``prefill_steps * step_ms + prompt_ms * batch * tokens + prompt_pair_ms * batch * tokens ** 2``; all of it
    times noise.
    """

    name: Name = Field(description="Name of the backend, unique within the study.")
    kind: Literal["simulated"] = Field(description="Simulated latencies of a known law; not a measurement.")
    batch_size: Count = Field(default=1, description="Sequences in one call.")
    overhead_ms: Milliseconds = Field(default=1.0, description="Constant part of a decode step, in ms.")
    params_ms: Milliseconds = Field(default=1.0, description="Factor of the part that grows, in ms.")
    params_exponent: Annotated[float, Field(ge=-4, le=4)] = Field(default=0.5, description="Exponent of parameters.")
    depth_exponent: Annotated[float, Field(ge=-4, le=4)] = Field(default=0.0, description="Exponent of layers.")
    prefill_steps: Annotated[float, Field(gt=0, le=1e6)] = Field(default=1.2, description="Prefill, in decode steps.")
    sequence_ms: Milliseconds = Field(default=0.0, description="Added to a decode step for each sequence, in ms.")
    context_ms: Milliseconds = Field(default=0.0, description="The same for each token in each sequence's cache.")
    prompt_ms: Milliseconds = Field(default=0.0, description="Added to a prefill for each prompt token, in ms.")
    prompt_pair_ms: Milliseconds = Field(default=0.0, description="The same for each pair of tokens of a prompt.")
    threads: Count | None = Field(default=None, description="CPU threads; left out: one.")
    serial_share: Share = Field(default=1.0, description="Share of the growing part that more threads don't shorten.")
    model_scatter: Deviation = Field(default=0.0, description="SD of log latency between models.")
    round_noise: Deviation = Field(default=0.0, description="SD of log latency between rounds.")
    call_noise: Deviation = Field(default=0.02, description="SD of log latency between calls.")
    cold_start_ms: Milliseconds = Field(default=0.0, description="Added to the first prefill after a load, in ms.")
    early_stop_rate: Share = Field(default=0.0, description="Share of calls that stop before the budget.")
    failure_rate: Share = Field(default=0.0, description="Share of calls that fail.")
    real_time: bool = Field(default=False, description="Sleep for the simulated time.")


class ServedBackend(Strict):
    """What every backend that is a server shares."""

    name: Name = Field(description="Name of the backend, unique within the study.")
    batch_size: Literal[1] = Field(default=1, description="Always 1: batching is the server's.")
    connect_timeout_s: Seconds = Field(default=10.0, description="Longest connection set-up, in s.")
    idle_timeout_s: Seconds = Field(default=300.0, description="Longest silence of a server, its load included, in s.")
    timeout_s: Seconds = Field(default=1800.0, description="Longest call, in s.")
    concurrency: Annotated[tuple[Clients, ...], Field(min_length=1, max_length=100, strict=False)] = Field(
        default=(1,), description="Clients that call at once, each number a cell of its own."
    )
    ca_file: str | None = Field(default=None, description="Certificates to trust (PEM); left out: the system's.")
    optional: bool = Field(
        default=False, description="Skip it, with a notice, where its server or a model of it is not here."
    )


class OllamaBackend(ServedBackend):
    """An Ollama server."""

    kind: Literal["ollama"] = Field(description="An Ollama server.")
    url: ServerUrl | None = Field(
        default=None, description="Address; left out: OLLAMA_HOST, as Ollama's clients read it."
    )
    options: OllamaOptions = Field(
        default_factory=dict, description="Options sent with each request, over temperature 0, top_p 1 and the seed."
    )
    keep_alive: str | int | None = Field(default=None, description="How long the server keeps the model loaded.")
    context_length: Count | None = Field(default=None, description="Context in tokens (num_ctx); left out: its own.")
    raw: bool = Field(default=False, description="Send prompts without the model's template.")
    think: bool | str | None = Field(default=None, description="Have a thinking model think; left out: its own way.")
    cold: bool = Field(default=False, description="Unload the model before each call, so that each one loads it.")


class LlamacppBackend(ServedBackend):
    """llama.cpp's ``llama-server``: one that phaselaw starts for each model, or one that runs already."""

    kind: Literal["llamacpp"] = Field(description="llama.cpp's server.")
    url: ServerUrl | None = Field(default=None, description="A server that runs already; left out: one is started.")
    server: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Path of llama-server, or xllamacpp; left out: PATH's, else the package's."
    )
    weights: Literal["f32", "f16", "q8_0", "q4_0"] = Field(
        default="f32", description="How a ladder model or GPT-2 folder is exported; a GGUF file is as it is."
    )
    threads: Count | None = Field(default=None, description="CPU threads; left out: the server's own choice.")
    context_length: Count | None = Field(default=None, description="Context in tokens; left out: the model's own.")
    batch: Count | None = Field(default=None, description="Prompt tokens handed over at once (--batch-size).")
    micro_batch: Count | None = Field(default=None, description="Prompt tokens computed at once (--ubatch-size).")
    gpu_layers: Annotated[int, Field(ge=0, le=10_000)] | None = Field(
        default=None, description="Layers put on the GPU; left out: the server's own choice."
    )
    kv_cache: Literal["f32", "f16", "bf16", "q8_0", "q4_0"] | None = Field(
        default=None, description="Number format of the KV cache; left out: the server's (f16)."
    )
    flash_attention: bool | None = Field(default=None, description="Left out: the server's own choice.")
    ignore_eos: bool = Field(default=True, description="Generate the whole budget; false: models may stop early.")
    chat_template: bool = Field(default=False, description="Put prompts of text into the model's chat template.")
    one_at_a_time: bool = Field(
        default=False, description="Stop a model's server before the next one starts: slower, needs less memory."
    )
    start_timeout_s: Seconds = Field(default=600.0, description="Longest start of a server, its load included, in s.")

    @model_validator(mode="after")
    def _settings_are_of_a_server_we_start(self) -> Self:
        for name in ("server", "threads", "context_length", "batch", "micro_batch", "gpu_layers", "kv_cache",
                     "flash_attention"):  # fmt: skip
            if self.url is not None and getattr(self, name) is not None:
                raise ValueError(f"{name} is set where a server is started; leave it or url out")
        return self


class OpenaiBackend(ServedBackend):
    """A server that speaks OpenAI's protocol: vLLM, SGLang, llama-server, LM Studio and others."""

    kind: Literal["openai"] = Field(description="A server that speaks OpenAI's protocol.")
    url: ServerUrl | None = Field(default=None, description="Address with its /v1; left out: OPENAI_BASE_URL.")
    api: Literal["completions", "chat"] = Field(default="completions", description="Which of the two is called.")
    api_key_env: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        default="OPENAI_API_KEY", description="Environment variable that holds the key, if any."
    )
    ignore_eos: bool = Field(default=True, description="Ask for the whole budget where the server knows how.")
    extra: OpenaiExtra = Field(
        default_factory=dict, description="More keys of the request, over temperature 0, top_p 1 and the seed."
    )
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=0, description="Further tries of a call that was turned away; its row is an error row all the same."
    )


AnyBackend = HfBackend | SimulatedBackend | OllamaBackend | LlamacppBackend | OpenaiBackend
