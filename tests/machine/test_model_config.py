"""What a config says of a cache: by kind of layer, or not known with the reason; never a guess."""

from typing import Any

import pytest

from phaselaw.machine.model_config import NOT_KNOWN, Cached, cache_in, facts_of, is_of_experts

PLAIN = {"num_hidden_layers": 6, "hidden_size": 64, "num_attention_heads": 8}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 8,
          "linear_conv_kernel_dim": 4}  # fmt: skip
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_d_conv": 4}


@pytest.mark.parametrize(
    ("more", "cache"),
    [
        ({}, "6 x 128 n"),
        ({"num_key_value_heads": 2}, "6 x 32 n"),
        ({"num_key_value_heads": 2, "head_dim": 32}, "6 x 128 n"),
        ({"num_key_value_heads": 2, "head_dim": 24, "v_head_dim": 16}, "6 x 80 n"),
        ({"model_type": "mistral", "sliding_window": 8}, "6 x 128 min(n, 8)"),
        ({"model_type": "mistral", "sliding_window": None}, "6 x 128 n"),
        ({"model_type": "qwen2", "sliding_window": 8, "use_sliding_window": False}, "6 x 128 n"),
        ({"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 4}, "4 x 128 n + 2 x 128 min(n, 8)"),
        ({"model_type": "gemma2", "sliding_window": 8}, "3 x 128 min(n, 8) + 3 x 128 n"),
        ({"sliding_window": 8, "sliding_window_pattern": 3}, "4 x 128 min(n, 8) + 2 x 128 n"),
        ({"layer_types": ["chunked_attention", "full_attention"] * 3, "attention_chunk_size": 8},
         "3 x 128 min(n, 8) + 3 x 128 n"),
        ({"kv_lora_rank": 32, "qk_rope_head_dim": 8, "num_key_value_heads": 8}, "6 x 40 n"),
        ({"num_kv_shared_layers": 2}, "4 x 128 n"),
        ({"per_layer_config": {"05": {"head_dim": 16}}}, "5 x 128 n + 1 x 256 n"),
        ({"num_hidden_layers": 3, "num_kv_heads": [1, 1, 2], "head_dim": 16}, "2 x 32 n + 1 x 64 n"),
        ({"multi_query": True}, "6 x 16 n"),
        ({"layer_types": ["conv", "full_attention"] * 3, "conv_L_cache": 3}, "3 x 192 + 3 x 128 n"),
        ({"layer_types": ["moe", "full_attention"] * 3}, "3 x 128 n"),
        ({"text_config": PLAIN | {"num_hidden_layers": 2}}, "2 x 128 n"),
        ({"multi_query_attention": True, "multi_query_group_num": 2, "kv_channels": 16}, "6 x 64 n"),
        ({"model_type": "RefinedWeb", "n_head_kv": 2}, "6 x 32 n"),
        ({"num_key_value_heads_per_layer": [4, 4, 2, 2, 2, 2]}, "2 x 64 n + 4 x 32 n"),
        ({"model_type": "llama4_text", "attention_chunk_size": 8, "no_rope_layers": []},
         "5 x 128 min(n, 8) + 1 x 128 n"),
        (LINEAR | {"full_attention_interval": 3}, "4 x 384 + 4 x 512 in fp32 + 2 x 128 n"),
        ({"model_type": "jamba", "attn_layer_offset": 1, "attn_layer_period": 3, "mamba_d_conv": 4, "mamba_d_state": 8,
          "mamba_expand": 2, "mamba_dt_rank": 4}, "4 x 512 + 4 x 1024 in fp32 + 2 x 128 n"),
        (MAMBA2 | {"model_type": "nemotron_h", "hybrid_override_pattern": "M-*E-M"},
         "2 x 576 + 2 x 1024 in fp32 + 1 x 128 n"),
    ],
)  # fmt: skip
def test_a_cache_is_what_its_layers_hold(more: dict[str, Any], cache: str) -> None:
    assert facts_of(PLAIN | more)["kv_cache"] == cache


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"model_type": "unheard_of", "sliding_window": 8}, "which of its layers slide"),
        ({"layer_types": ["full_attention"] * 5}, "6 layers and the kinds of 5"),
        ({"layer_types": ["wavelet"] * 6}, "layers of the kind 'wavelet'"),
        ({"layer_types": ["sliding_attention"] * 6}, "doesn't state sliding_window"),
        ({"layer_types": ["linear_attention"] * 6}, "linear layers of a kind"),
        ({"mamba_d_state": 16}, "has mamba_d_state"),
        ({"index_topk": 2048}, "has index_topk"),
        ({"is_encoder_decoder": True}, "has is_encoder_decoder"),
        ({"num_attention_heads": None}, "heads or their width"),
        ({"num_hidden_layers": None}, "doesn't state n_layer"),
        ({"use_cla": True, "cla_share_factor": 2}, "has cla_share_factor"),
        ({"block_configs": [{"attention": {"n_heads_in_group": 8}}]}, "has block_configs"),
        ({"attn_config": {"kv_n_heads": 2}}, "has attn_config"),
        ({"attention_chunk_size": 8, "no_rope_layers": [1, 0] * 3}, "has attention_chunk_size"),
        (MAMBA2 | {"model_type": "falcon_h1"}, "has mamba_d_conv"),
        (
            MAMBA2 | {"model_type": "unheard_of", "layer_types": ["mamba", "full_attention"] * 3},
            "linear layers of a kind",
        ),
    ],
)
def test_what_no_rule_reads_is_not_known_with_the_reason(more: dict[str, Any], reason: str) -> None:
    cache = facts_of(PLAIN | more)["kv_cache"]
    assert cache.startswith(NOT_KNOWN)
    assert reason in str(cache_in(cache))


@pytest.mark.parametrize("name", ["max_seq_len", "seq_length", "model_max_length", "n_positions"])
def test_positions_go_by_many_names(name: str) -> None:
    assert facts_of(PLAIN | {name: 2048})["n_positions"] == 2048


def test_a_caches_words_are_read_back() -> None:
    text = "3 x 384 + 3 x 512 in fp32 + 5 x 64 min(n, 16) + 1 x 64 n"
    assert cache_in(text) == (Cached(3, 384, 0), Cached(3, 512, 0, True), Cached(5, 64, 16), Cached(1, 64))


def test_experts_go_by_their_name_or_as_a_stack_of_matrices() -> None:
    assert is_of_experts("model.layers.0.mlp.experts.3.up_proj.weight", (8, 4), 8)
    assert is_of_experts("model.layers.0.moe.input_linear.weight", (8, 4, 4), 8)
    assert not is_of_experts("model.layers.0.mlp.shared_experts.up_proj.weight", (8, 4), 8)
    assert not is_of_experts("model.layers.0.mlp.experts.3.up_proj.weight", (8, 4), None)
