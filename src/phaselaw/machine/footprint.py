"""What a decoder-only transformer moves, computes and holds, from its architecture: every formula once.

Traffic is the least that an implementation can do: each weight is read once a forward pass, however many sequences
share it; the cache of keys and values (KV) is read once a step. Work counts a multiply-add as two operations.

Sources: 2 operations a parameter and token, and the attention term, Kaplan et al. 2020 (arXiv:2001.08361) section 2.1;
traffic of weights and KV, Pope et al. 2022 (arXiv:2211.05102) section 2; KV heads fewer than heads, Ainslie et al. 2023
(arXiv:2305.13245).

Left out, since each is under a hundredth here: one row of an embedding a token, norms, biases, sampling, and the
activations, which stay in caches between two layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

VALUE_BYTES = {"fp32": 4.0, "fp64": 8.0, "fp16": 2.0, "bf16": 2.0}
KV_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0}
KV_BYTES |= {"q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32, "q4_0": 18 / 32}
"""Bytes a cached value, by llama.cpp's names; a quantised block holds 32 values and its scale."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A model's size and shape."""

    params: float
    """Parameters, tied weights once."""
    weights_bytes: float
    n_layer: int
    n_embd: int
    n_head: int
    n_kv_head: int
    head_dim: int
    n_inner: int
    vocab_size: int
    n_positions: int | None = None
    lookup_params: float = 0.0
    """Parameters of tables of which a token reads but a row: positions, and token embeddings that are not tied."""
    lookup_bytes: float = 0.0

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self | None:
        """From a model's facts as `phaselaw.records.ModelInfo` names them; ``None`` where the shape isn't known.

        Where the KV heads aren't known they are the heads; the head's width is the model's over the heads; the inner
        width is four times the model's (GPT-2's default). Mixtures of experts are ``None``: what a token reads of them
        is not known.
        """
        needed = ("params_millions_measured", "weights_bytes", "n_layer", "n_embd", "n_head", "vocab_size")
        if facts.get("n_experts") or any(not facts.get(name) for name in needed):
            return None
        layers, width, heads, vocab = (int(facts[name]) for name in needed[2:])
        positions = facts.get("n_positions")
        return cls(
            params=float(facts["params_millions_measured"]) * 1e6,
            weights_bytes=float(facts["weights_bytes"]),
            n_layer=layers,
            n_embd=width,
            n_head=heads,
            n_kv_head=int(facts.get("n_kv_head") or heads),
            head_dim=int(facts.get("head_dim") or width // heads),
            n_inner=int(facts.get("n_inner") or 4 * width),
            vocab_size=vocab,
            n_positions=None if not positions else int(positions),
            lookup_params=float(facts.get("lookup_params") or 0),
            lookup_bytes=float(facts.get("lookup_bytes") or 0),
        )

    @property
    def head_params(self) -> float:
        """Parameters of the output projection, which reads all of a tied embedding."""
        return float(self.vocab_size) * self.n_embd

    @property
    def layer_params(self) -> float:
        """Parameters that every token is multiplied with: all but the output projection and what is looked up."""
        return max(0.0, self.params - self.lookup_params - self.head_params)


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """Bytes moved and operations done."""

    bytes: float
    flops: float


def kv_bytes_per_token(model: Architecture, kv_bytes: float) -> float:
    """Bytes that one token of one sequence adds to the cache: a key and a value a layer and KV head."""
    return 2.0 * model.n_layer * model.n_kv_head * model.head_dim * kv_bytes


def decode_step(model: Architecture, *, batch: int, context: float, kv_bytes: float) -> Work:
    """One decode step of a batch whose sequences each attend to ``context`` tokens, the new one among them.

    Bytes: weights less what is looked up, once; the cache of each sequence read, and one token's written. Operations a
    sequence: 2 a parameter, and 4 x layers x attention width x context (2 for the scores, 2 for the weighted sum).
    """
    per_token = kv_bytes_per_token(model, kv_bytes)
    attention = 4.0 * model.n_layer * model.n_head * model.head_dim * context
    return Work(
        bytes=model.weights_bytes - model.lookup_bytes + batch * per_token * (context + 1),
        flops=batch * (2.0 * (model.layer_params + model.head_params) + attention),
    )


def prefill(model: Architecture, *, batch: int, prompt: float, kv_bytes: float) -> Work:
    """One pass over the prompts of a batch, with the logits of the last position only.

    Bytes: weights once, the cache written. Operations: each token attends to itself and those before it.
    """
    attention = 4.0 * model.n_layer * model.n_head * model.head_dim * prompt * (prompt + 1) / 2
    return Work(
        bytes=model.weights_bytes - model.lookup_bytes + batch * prompt * kv_bytes_per_token(model, kv_bytes),
        flops=batch * (2.0 * (model.layer_params * prompt + model.head_params) + attention),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes held at the peak of a call; the runtime's own (interpreter, libraries, CUDA context) is not in it."""

    weights: float
    kv_cache: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.kv_cache + self.activations


def memory(
    model: Architecture, *, batch: int, context: float, prompt: float, value_bytes: float, kv_bytes: float
) -> Memory:
    """The peak of calls of ``batch`` sequences: ``context`` tokens cached in the end, ``prompt`` of them prefilled.

    Activations are what is alive at the widest moment of the prefill, in the manner of Korthikanti et al. 2022
    (arXiv:2205.05198, section 4) less what only training keeps: the residual stream, its normed copy, queries, keys and
    values, and the feed-forward's inner values four times (before and after the nonlinearity, and two temporaries where
    it is written out, as GPT-2's is); or in the decode that follows one layer's cache a second time, where a runtime
    grows it by copying. Logits of the last position come on top.
    Attention is taken to be fused: no matrix of scores is held.
    """
    kv_cache = batch * context * kv_bytes_per_token(model, kv_bytes)
    queries = model.n_head * model.head_dim + 2 * model.n_kv_head * model.head_dim
    prefilling = batch * prompt * value_bytes * (2 * model.n_embd + max(queries, 4 * model.n_inner))
    logits = batch * model.vocab_size * value_bytes
    widest = max(prefilling, kv_cache / model.n_layer)
    return Memory(weights=model.weights_bytes, kv_cache=kv_cache, activations=widest + logits)
