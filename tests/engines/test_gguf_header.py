"""What GGUF's metadata states of a model: its counts, its experts, what it caches; lists of layers included."""

import struct
from pathlib import Path
from typing import Any

from phaselaw.engines.gguf_header import architecture, read_header
from phaselaw.engines.ollama import model_info

PLAIN = {"block_count": 6, "embedding_length": 64, "attention.head_count": 8, "feed_forward_length": 128}


def stated(family: str = "llama", **keys: Any) -> dict[str, Any]:
    of_family = {f"{family}.{key}": value for key, value in (PLAIN | keys).items()}
    return {"general.architecture": family, "general.parameter_count": 1_000_000, **of_family}


def test_the_cache_is_read_by_the_names_of_gguf() -> None:
    assert architecture(stated())["kv_cache"] == "6 x 128 n"
    assert architecture(stated(**{"attention.head_count_kv": 2}))["kv_cache"] == "6 x 32 n"
    assert architecture(stated("gemma3", **{"attention.sliding_window": 16}))["kv_cache"] == (
        "5 x 128 min(n, 16) + 1 x 128 n"
    )
    latent = {"attention.kv_lora_rank": 32, "rope.dimension_count": 8}
    assert architecture(stated("deepseek2", **latent))["kv_cache"] == "6 x 40 n"
    assert architecture(stated(**{"attention.head_count_kv": [1, 1, 2, 2, 2, 2]}))["kv_cache"] == "2 x 16 n + 4 x 32 n"


def test_what_gguf_says_of_another_kind_of_cache_is_not_known() -> None:
    assert "ssm_state_size" in architecture(stated("jamba", **{"ssm.state_size": 16}))["kv_cache"]


def test_a_list_that_a_server_keeps_to_itself_is_never_guessed() -> None:
    assert "not known" in architecture(stated(**{"attention.head_count_kv": None}))["kv_cache"]


def test_experts_are_counted_by_their_tensors_else_by_their_shape() -> None:
    said = stated("qwen2moe", expert_count=4, expert_used_count=2, expert_feed_forward_length=32)
    by_shape = architecture(said)
    assert (by_shape["n_experts"], by_shape["n_experts_used"]) == (4, 2)
    assert by_shape["expert_params"] == 6 * 4 * 3 * 64 * 32
    tables = {"blk.0.ffn_up_exps.weight": (5000, 2500), "blk.0.ffn_up_shexp.weight": (7, 7), "output.weight": (9, 9)}
    assert architecture(said, tables) | {"expert_params": 5000, "expert_bytes": 2500} == architecture(said, tables)


def test_an_ollama_model_keeps_all_and_active_parameters() -> None:
    said = stated("qwen2moe", expert_count=4, expert_used_count=1, expert_feed_forward_length=32)
    info = model_info({"model_info": said}, None)
    assert info.params_millions_measured == 1.0
    assert info.params_millions_active == 1.0 - 6 * 3 * 3 * 64 * 32 / 1e6


def test_a_short_list_of_numbers_in_a_header_is_read(tmp_path: Path) -> None:
    def text(words: str) -> bytes:
        return struct.pack("<Q", len(words)) + words.encode()

    entries = [
        text("a.heads") + struct.pack("<IIQ3i", 9, 5, 3, 1, 1, 2),
        text("a.long") + struct.pack("<IIQ", 9, 0, 2) + b"xy",
    ]
    path = tmp_path / "m.gguf"
    tensor = text("t") + struct.pack("<IQIQ", 1, 4, 0, 0)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, len(entries)) + b"".join(entries) + tensor)
    assert read_header(path)[0] == {"a.heads": [1, 1, 2]}
