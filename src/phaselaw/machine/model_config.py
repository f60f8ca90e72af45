"""What a model's config says of its shape: its counts, and what it caches of a token.

Configs are read as they are stored (``config.json``), with the names of transformers' families. What a layer caches
depends on its kind: all tokens, the last of a sliding window, a latent vector in place of keys and values (DeepSeek-AI
2024, arXiv:2405.04434, section 2.1), or a state of fixed size (Gu and Dao 2023, arXiv:2312.00752; Yang et al. 2024,
arXiv:2412.06464). A config with a sign of a kind that no rule here knows is *not known*, with the sign as the reason:
a guess would be several times off.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_NAMES = {
    "n_layer": "n_layer num_hidden_layers num_transformer_layers num_layers n_layers",
    "n_embd": "n_embd hidden_size model_dim d_model",
    "n_head": "n_head num_attention_heads num_query_heads n_heads num_heads attention_heads",
    "n_inner": "n_inner intermediate_size ffn_dim ff_intermediate_size ffn_hidden_size moe_intermediate_size",
    "vocab_size": "vocab_size padded_vocab_size",
    "n_positions": "n_positions max_position_embeddings max_context_length max_seq_len seq_length model_max_length",
    "n_kv_head": "num_key_value_heads num_kv_heads n_head_kv multi_query_group_num num_key_value_heads_per_layer",
    "head_dim": "kv_channels head_dim attention_head_dim",
    "n_experts": "num_local_experts num_experts n_routed_experts moe_num_experts",
    "n_experts_used": "num_experts_per_tok num_experts_per_token experts_per_token moe_topk moe_k top_k_experts",
}
CONFIG_NAMES = {of: tuple(names.split()) for of, names in _NAMES.items()}
"""A model config's own names for each, GPT-2's and most others'."""
_COUNTS = {name for names in CONFIG_NAMES.values() for name in names}

NOT_KNOWN = "not known: "
_MOST_LAYERS = 10_000
_ALL_SLIDE = {"mistral", "ministral", "mixtral", "phi3", "phimoe", "starcoder2"}
"""Families all of whose layers slide where a config has a window and no list of layers."""
_FULL_EVERY = {"gemma2": 2, "vaultgemma": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2, "gpt-oss": 2}
"""Families whose every so-manieth layer attends to all tokens and the others slide, where no list says it."""
_STATE_SIGNS = re.compile(r"mamba|ssm|conv(?!ert)|linear_(num|key|value|attn|head)|rwkv|recurrent|state_size")
_SIGNS = re.compile(
    r"lightning|^block_(configs?|types?)$|attn_(layer|config|type|idx)|kv_(shared|sharing|reuse)|^index_|"
    r"window|chunk_size$|lsh_|local_attn|compress|hybrid|cla_|global_head|swa_|k_eq_v|xlstm|cross_attention_layers|"
    r"is_encoder_decoder|kv_(heads|channels|groups)|head(s|s_count)?_kv|query_group|heads_per_layer"
)
"""Keys that speak of a cache of another kind, where no rule reads them; the former none where states are known."""
_HARMLESS = {"use_sliding_window", "max_window_layers", "sliding_window_pattern", "_sliding_window_pattern"}
_HARMLESS |= {"chunk_size", "chunk_size_feed_forward", "mamba_chunk_size", "conv_L_cache", "sliding_window"}
_HARMLESS |= {"num_kv_shared_layers", "hybrid_override_pattern", "attn_layer_period", "attn_layer_offset"}
_HARMLESS |= {*CONFIG_NAMES["n_kv_head"], *CONFIG_NAMES["head_dim"]}
_LETTERS = {"M": "mamba", "*": "full_attention", "-": "mlp", "E": "moe"}  # of a hybrid_override_pattern
_KEPT = {"full_attention": "", "attention": "", "sliding_attention": "sliding_window"}
_KEPT |= {"chunked_attention": "attention_chunk_size"}
"""Kinds of attention layers, and the key that states how many tokens they keep, if not all."""
Stated = Callable[..., int]
"""A whole number of a config by its first name that is there; `LookupError` where none is."""


class Cached(NamedTuple):
    """What layers that are alike hold of a sequence."""

    layers: int
    values: int
    """Of each token; of a state in all."""
    kept: int | None = None
    """Tokens at most; ``None``: all of them; 0: a state, whatever the tokens."""
    in_fp32: bool = False
    """Whether each value takes 4 bytes, whatever the cache's format is."""

    def tokens(self, tokens: float) -> float:
        """How many tokens are held of so many; 1 for a state."""
        return tokens if self.kept is None else min(tokens, self.kept) if self.kept else 1.0

    def bytes(self, tokens: float, kv_bytes: float) -> float:
        """Bytes that these layers hold of a sequence of so many tokens."""
        return self.layers * self.values * self.tokens(tokens) * (4.0 if self.in_fp32 else kv_bytes)

    def __str__(self) -> str:
        span = " n" if self.kept is None else f" min(n, {self.kept})" if self.kept else ""
        return f"{self.layers} x {self.values}{span}{' in fp32' if self.in_fp32 else ''}"


def text_of(cache: Mapping[Cached, int]) -> str:
    """A cache as the values of a sequence of n tokens, such as ``5 x 64 min(n, 16) + 1 x 64 n``."""
    return " + ".join(str(each._replace(layers=count)) for each, count in cache.items()) or "0 x 0"


def cache_in(text: str) -> tuple[Cached, ...] | str:
    """The cache that a text of `text_of` means, or the reason why it is not known."""
    if text.startswith(NOT_KNOWN):
        return text.removeprefix(NOT_KNOWN)
    terms = re.findall(r"(\d+) x (\d+)(?: (n)| min\(n, (\d+)\))?( in fp32)?", text)
    return tuple(
        Cached(int(layers), int(values), None if all_tokens else int(kept or 0), bool(fp32))
        for layers, values, all_tokens, kept, fp32 in terms
    )


def is_of_experts(name: str, shape: Sequence[int], n_experts: int | None) -> bool:
    """Whether a tensor holds the weights of experts: by its name, or one matrix an expert in a stack."""
    if not n_experts:
        return False
    return "experts" in name.split(".") or (len(shape) == 3 and shape[0] == n_experts)


def facts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config's counts by the names of `phaselaw.records.ModelInfo`, with what it caches in words; ``None`` if absent.

    Of heads that differ by layer the mean counts. The config of a model of text and images is that of its text.
    """
    text = config.get("text_config")
    config = text if isinstance(text, Mapping) else config
    if isinstance(config.get("layers_block_type"), list):
        config = {"num_hidden_layers": len(config["layers_block_type"]), **config}
    config = {name: value for name, value in config.items() if name not in _COUNTS or _is_count(value)}
    found = {of: next((config[name] for name in names if config.get(name)), None) for of, names in CONFIG_NAMES.items()}
    heads_by_layer = {name: value for name, value in found.items() if isinstance(value, list)}
    try:
        cache = text_of(Counter(_layers(config)))
    except LookupError as reason:
        cache = f"{NOT_KNOWN}{reason.args[0]}"
    means = {name: round(sum(value) / max(1, len(value))) for name, value in heads_by_layer.items()}
    return found | means | {"kv_cache": cache}


def _is_count(value: object) -> bool:
    """Whether a config's value is a number, or one a layer; anything else states no count."""
    numbers = value if isinstance(value, list) else [value]
    return all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers)


def _layers(config: Mapping[str, Any]) -> list[Cached]:
    """What each layer caches; `LookupError` with the reason where that is not known."""
    read: set[str] = set(_HARMLESS)

    def stated(*names: str) -> int:
        read.update(names)
        value = next((config[name] for name in names if isinstance(config.get(name), int)), None)
        if value is None:
            raise LookupError(f"its config doesn't state {names[0]}")
        return int(value)

    n_layer = stated(*CONFIG_NAMES["n_layer"])
    if not 0 <= n_layer <= _MOST_LAYERS:
        raise LookupError(f"its config has {n_layer:,} layers")
    kinds = _kinds(config, n_layer)
    shared = config.get("num_kv_shared_layers") or 0
    if len(kinds) != n_layer:
        raise LookupError(f"its config has {n_layer} layers and the kinds of {len(kinds)}")
    layers = []
    of_layer = {int(index): each for index, each in (config.get("per_layer_config") or {}).items()}
    for index, kind in enumerate(kinds[: n_layer - shared]):
        if kind in _KEPT:
            values = _of_token({**config, **of_layer.get(index, {})}, index)
            layers.append(Cached(1, values, stated(_KEPT[kind]) if _KEPT[kind] else None))
        elif kind == "conv":
            layers.append(Cached(1, stated("hidden_size") * stated("conv_L_cache"), 0))
        elif kind in ("linear_attention", "mamba"):
            layers += _states(config, stated)
        elif kind not in ("moe", "mlp"):
            raise LookupError(f"it has layers of the kind {kind!r}")
    if config.get("model_type") == "mimo_v2_flash":
        raise LookupError("its sliding layers have other heads, which its config doesn't state")
    states_known = any(layer.kept == 0 for layer in layers)
    unread = [key for key, value in config.items() if value and key not in read]
    signs = [key for key in unread if _SIGNS.search(key) or (not states_known and _STATE_SIGNS.search(key))]
    if signs:
        raise LookupError(f"its config has {', '.join(sorted(signs))}, which no rule here reads")
    return layers


def _kinds(config: Mapping[str, Any], n_layer: int) -> list[str]:
    """The kind of each layer, by transformers' names."""
    family, window = str(config.get("model_type")), config.get("sliding_window")
    pattern, chunks = config.get("hybrid_override_pattern"), config.get("attention_chunk_size")
    letters = [_LETTERS.get(letter, letter) for letter in pattern] if isinstance(pattern, str) else None
    for listed in (config.get("layer_types"), config.get("layers_block_type"), letters):
        if isinstance(listed, list):
            return [str(kind) for kind in listed]
    if family in ("mamba", "falcon_mamba", "mamba2"):
        return ["mamba"] * n_layer
    slide = window and config.get("use_sliding_window") is not False
    for every, first, others in (
        (config.get("attn_layer_period"), config.get("attn_layer_offset"), "mamba"),
        (config.get("full_attention_interval"), -1, "linear_attention"),
        (4 if chunks and not config.get("no_rope_layers", True) else None, -1, "chunked_attention"),
        (slide and (config.get("sliding_window_pattern") or _FULL_EVERY.get(family)), -1, "sliding_attention"),
    ):
        if isinstance(every, int) and isinstance(first, int) and every > 0:
            return [others if (index - first) % every else "full_attention" for index in range(n_layer)]
    if not slide:
        return ["full_attention"] * n_layer
    if family in _ALL_SLIDE:
        return ["sliding_attention"] * n_layer
    first = config.get("max_window_layers")
    if isinstance(first, int) and config.get("use_sliding_window"):
        return ["full_attention" if index < first else "sliding_attention" for index in range(n_layer)]
    raise LookupError(f"which of its layers slide over {window} tokens is not stated")


def _of_token(config: Mapping[str, Any], index: int) -> int:
    """Values that one token adds to the cache of an attention layer."""
    rank, rotary = config.get("kv_lora_rank"), config.get("qk_rope_head_dim")
    if rank and rotary is not None:
        return int(rank + rotary)

    def counted(of: str) -> int | None:
        value = next((config[name] for name in CONFIG_NAMES[of] if config.get(name)), None)
        return value[index] if isinstance(value, list) else value

    heads, width = counted("n_head"), counted("n_embd")
    alone = config.get("multi_query") and not config.get("new_decoder_architecture")
    kv_heads = 1 if alone else counted("n_kv_head") or heads
    key = counted("head_dim") or (width // heads if width and heads else None)
    if not kv_heads or not key:
        raise LookupError("its config doesn't state its heads or their width")
    return int(kv_heads * (key + (config.get("v_head_dim") or key)))


def _states(config: Mapping[str, Any], stated: Stated) -> list[Cached]:
    """A linear layer's states: the last inputs of its convolution, and what it remembers, most often in fp32."""
    family = config.get("model_type")
    if "linear_num_value_heads" in config:
        values, key_dim = stated("linear_num_value_heads"), stated("linear_key_head_dim")
        value_dim, kernel = stated("linear_value_head_dim"), stated("linear_conv_kernel_dim")
        inputs = 2 * stated("linear_num_key_heads") * key_dim + values * value_dim
        return [Cached(1, inputs * kernel, 0), Cached(1, values * key_dim * value_dim, 0, True)]
    if family in ("mamba", "falcon_mamba", "jamba"):
        inner = (family != "jamba" and config.get("intermediate_size")) or 0
        inner = inner or stated("mamba_expand", "expand") * stated("hidden_size")
        state = stated("mamba_d_state", "state_size")
        return [Cached(1, inner * stated("mamba_d_conv", "conv_kernel"), 0), Cached(1, inner * state, 0, True)]
    if family in ("mamba2", "bamba", "granitemoehybrid", "nemotron_h"):
        heads = stated("mamba_n_heads", "mamba_num_heads", "num_heads")
        width = stated("mamba_d_head", "mamba_head_dim", "head_dim")
        state, groups = stated("mamba_d_state", "ssm_state_size", "state_size"), stated("mamba_n_groups", "n_groups")
        inputs = heads * width + 2 * groups * state
        return [Cached(1, inputs * stated("mamba_d_conv", "conv_kernel"), 0), Cached(1, heads * width * state, 0, True)]
    raise LookupError("it has linear layers of a kind that no rule here reads")
