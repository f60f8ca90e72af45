"""What a decoder-only transformer moves, computes and holds, from its architecture: every formula once.

Traffic is the least that an implementation can do: each weight is read once a forward pass, however many sequences
share it; the cache of keys and values (KV) is read once a step. Work counts a multiply-add as two operations.

Sources: 2 operations a parameter and token, and the attention term, Kaplan et al. 2020 (arXiv:2001.08361) section 2.1;
traffic of weights and KV, Pope et al. 2022 (arXiv:2211.05102) section 2; KV heads fewer than heads, Ainslie et al. 2023
(arXiv:2305.13245); experts, Shazeer et al. 2017 (arXiv:1701.06538). What is cached: `phaselaw.machine.model_config`.

Left out, since each is under a hundredth here: one row of an embedding a token, norms, biases, sampling, and the
activations, which stay in caches between two layers.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from phaselaw.machine.model_config import Cached, cache_in
from phaselaw.records import active_params

VALUE_BYTES = {"fp32": 4.0, "fp64": 8.0, "fp16": 2.0, "bf16": 2.0}
KV_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0}
KV_BYTES |= {"q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32, "q4_0": 18 / 32}
"""Bytes a cached value, by llama.cpp's names; a quantised block holds 32 values and its scale."""

_COUNTS = ("n_layer", "n_embd", "n_head", "vocab_size", "n_experts", "n_experts_used")
_SIZES = ("weights_bytes", "lookup_params", "lookup_bytes", "expert_params", "expert_bytes")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A model's size and shape."""

    params: float
    """Parameters, tied weights once."""
    weights_bytes: float
    n_layer: int
    n_embd: int
    n_head: int
    head_dim: int
    n_inner: int
    vocab_size: int
    cache: tuple[Cached, ...] | str
    """What layers hold of a sequence, or the reason why that is not known."""
    n_positions: int | None = None
    lookup_params: float = 0.0
    """Parameters of tables of which a token reads but a row: positions, and token embeddings that are not tied."""
    lookup_bytes: float = 0.0
    n_experts: int = 0
    """Experts of a layer, in a mixture of experts only."""
    n_experts_used: int = 0
    """Those that one token is sent to."""
    expert_params: float = 0.0
    """Parameters of all experts; shared ones, which every token reads, are no part of it."""
    expert_bytes: float = 0.0

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self | None:
        """From a model's facts as `phaselaw.records.ModelInfo` names them; ``None`` where the shape isn't known.

        The head's width is the model's over the heads; the inner width is four times the model's (GPT-2's default).
        Where nothing is said of the cache, each layer caches a key and a value of every token; where the KV heads
        aren't known they are the heads.
        """
        said = facts.get("kv_cache")
        cache = cache_in(said) if said else None
        counts: dict[str, Any] = {name: int(facts.get(name) or 0) for name in _COUNTS}
        sizes: dict[str, Any] = {name: float(facts.get(name) or 0) for name in _SIZES}
        layers, width, heads = counts["n_layer"], counts["n_embd"], counts["n_head"]
        params = float(facts.get("params_millions_measured") or 0) * 1e6
        # Linear layers alone have no heads.
        needed = (params, sizes["weights_bytes"], layers, width, counts["vocab_size"], heads or cache is not None)
        if not all(needed):
            return None
        head_dim = int(facts.get("head_dim") or (width // heads if heads else 0))
        if cache is None:
            cache = (Cached(layers, 2 * int(facts.get("n_kv_head") or heads) * head_dim),)
        inner, positions = int(facts.get("n_inner") or 4 * width), int(facts.get("n_positions") or 0) or None
        known: dict[str, Any] = {"head_dim": head_dim, "n_inner": inner, "n_positions": positions, "cache": cache}
        return cls(params=params, **known, **counts, **sizes)

    @property
    def not_known(self) -> str | None:
        """Why it can't be told what a token reads; ``None`` where it can."""
        if isinstance(self.cache, str):
            return f"what it caches: {self.cache}"
        return "it is a mixture of experts, and how large these are is not stated" if self.unsized_experts else None

    @property
    def unsized_experts(self) -> bool:
        """Whether it is a mixture of experts of which it is not known how much a token reads."""
        return bool(self.n_experts and not (self.expert_params and self.n_experts_used))

    @property
    def active_params(self) -> float:
        """Parameters that one token is computed with or looks up: all but those of experts that it isn't sent to."""
        return active_params(self.params, self.expert_params, self.n_experts, self.n_experts_used)

    @property
    def head_params(self) -> float:
        """Parameters of the output projection, which reads all of a tied embedding."""
        return float(self.vocab_size) * self.n_embd

    @property
    def layer_params(self) -> float:
        """Parameters that one token is multiplied with: all but the output projection and what is looked up."""
        return max(0.0, self.active_params - self.lookup_params - self.head_params)

    def read_bytes(self, tokens: float = 1) -> float:
        """Bytes of weights that a pass over so many tokens at once reads: no tables, and of experts those called.

        Each token calls its experts independently of the others, all alike: n experts of which k are called leave
        (1 - k/n)^tokens of them unread.
        """
        unread = (1 - self.n_experts_used / self.n_experts) ** tokens if self.n_experts else 0.0
        return self.weights_bytes - self.lookup_bytes - self.expert_bytes * unread

    @property
    def cached(self) -> tuple[Cached, ...]:
        """What layers hold of a sequence; `ValueError` with the reason where that is not known."""
        if isinstance(self.cache, str):
            raise ValueError(self.cache)
        return self.cache

    @property
    def attending(self) -> list[Cached]:
        """The layers that attend to tokens."""
        return [each for each in self.cached if each.kept != 0]

    def cache_bytes(self, tokens: float, kv_bytes: float) -> float:
        """Bytes that one sequence of so many tokens holds in the cache."""
        return sum(each.bytes(tokens, kv_bytes) for each in self.cached)


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """Bytes moved and operations done."""

    bytes: float
    flops: float


def decode_step(model: Architecture, *, batch: int, context: float, kv_bytes: float) -> Work:
    """One decode step of a batch whose sequences each attend to ``context`` tokens, the new one among them.

    Bytes: the weights that its tokens read, once; the cache of each sequence read, and one token's written, or a
    state anew. Operations a sequence: 2 a parameter, and 4 x attention width for each layer and token attended to (2
    for the scores, 2 for the weighted sum).
    """
    cache = model.cache_bytes(context, kv_bytes) + model.cache_bytes(1, kv_bytes)
    attended = sum(each.layers * each.tokens(context) for each in model.attending)
    attention = 4.0 * model.n_head * model.head_dim * attended
    return Work(
        bytes=model.read_bytes(batch) + batch * cache,
        flops=batch * (2.0 * (model.layer_params + model.head_params) + attention),
    )


def prefill(model: Architecture, *, batch: int, prompt: float, kv_bytes: float, all_logits: bool = False) -> Work:
    """One pass over the prompts of a batch, with the logits of the last position only, or of all.

    Bytes: weights once, the cache written. Operations: each token attends to itself and those before it that are kept.
    """
    kept = [(each.layers, each.tokens(prompt)) for each in model.attending]
    attended = sum(layers * (most * (most + 1) / 2 + (prompt - most) * most) for layers, most in kept)
    work = model.layer_params * prompt + model.head_params * (prompt if all_logits else 1)
    return Work(
        bytes=model.read_bytes(batch * prompt) + batch * model.cache_bytes(prompt, kv_bytes),
        flops=batch * (2.0 * work + 4.0 * model.n_head * model.head_dim * attended),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes held at the peak of a call; the runtime's own (interpreter, libraries, CUDA context) is not in it."""

    weights: float
    kv_cache: float
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.kv_cache + self.activations


def memory(
    model: Architecture,
    *,
    batch: int,
    context: float,
    prompt: float,
    value_bytes: float,
    kv_bytes: float,
    all_logits: bool = False,
) -> Memory:
    """The peak of calls of ``batch`` sequences: ``context`` tokens cached in the end, ``prompt`` of them prefilled.

    Activations are what is alive at the widest moment of the prefill, in the manner of Korthikanti et al. 2022
    (arXiv:2205.05198, section 4) less what only training keeps: the residual stream, its normed copy, queries, keys and
    values, and the feed-forward's inner values four times (before and after the nonlinearity, and two temporaries where
    it is written out, as GPT-2's is); or in the decode that follows one layer's cache a second time, where a runtime
    grows it by copying. Logits of the last position, or of all, come on top.
    Attention is taken to be fused: no matrix of scores is held. `ValueError` where it is not known what is cached.
    """
    kv_cache = batch * model.cache_bytes(context, kv_bytes)
    largest = max((each.bytes(context, kv_bytes) / each.layers for each in model.cached), default=0.0)
    queries = model.n_head * model.head_dim + max((each.values for each in model.attending), default=0)
    prefilling = batch * prompt * value_bytes * (2 * model.n_embd + max(queries, 4 * model.n_inner))
    logits = batch * (prompt if all_logits else 1) * model.vocab_size * value_bytes
    widest = max(prefilling, batch * largest)
    return Memory(weights=model.weights_bytes, kv_cache=kv_cache, activations=widest + logits)
