"""What fits: one more does not, and more memory never fits less; a shape is the same, whatever it is kept as."""

import dataclasses
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.errors import AnalysisError, UsageError
from phaselaw.machine.footprint import Architecture, memory
from phaselaw.machine.model_config import Cached
from phaselaw.plan.memory import LARGEST, Fit, fit, largest, shapes_of

MODEL = Architecture(params=1e9, weights_bytes=2e9, n_layer=16, n_embd=2048, n_head=32, head_dim=64,
                     cache=(Cached(16, 1024),), n_inner=8192, vocab_size=128_000, n_positions=8192)  # fmt: skip

sizes = st.floats(1e8, 1e12)


def fitted(memory_bytes: float, *, batch: int = 1, context: int = 1024, model: Architecture = MODEL) -> Fit:
    return fit(model, memory_bytes=memory_bytes, batch=batch, context=context, value_bytes=2, kv_bytes=2,
               reserve_bytes=5e8)  # fmt: skip


def needed(batch: int, context: int) -> float:
    held = memory(MODEL, batch=batch, context=context, prompt=context, value_bytes=2, kv_bytes=2)
    return held.total + 5e8


@given(sizes, st.integers(1, 8192))
def test_the_largest_batch_fits_and_one_more_does_not(memory_bytes: float, context: int) -> None:
    found = fitted(memory_bytes, context=context).largest_batch
    assert found == 0 or needed(found, context) <= memory_bytes
    assert found == LARGEST or needed(found + 1, context) > memory_bytes


@given(sizes, st.integers(1, 64))
def test_the_largest_context_fits_and_one_more_does_not_or_is_beyond_the_model(memory_bytes: float, batch: int) -> None:
    found = fitted(memory_bytes, batch=batch)
    assert found.largest_context == 0 or needed(batch, found.largest_context) <= memory_bytes
    assert found.context_is_the_models or needed(batch, found.largest_context + 1) > memory_bytes
    assert found.largest_context <= 8192


@given(sizes, sizes)
def test_more_memory_never_fits_less(one: float, other: float) -> None:
    small, big = fitted(min(one, other)), fitted(max(one, other))
    assert small.largest_batch <= big.largest_batch
    assert small.largest_context <= big.largest_context
    assert small.fits <= big.fits


@given(sizes, st.integers(1, 64), st.integers(1, 8192))
def test_what_fits_agrees_with_the_bounds(memory_bytes: float, batch: int, context: int) -> None:
    found = fitted(memory_bytes, batch=batch, context=context)
    assert found.fits == (batch <= found.largest_batch) == (context <= found.largest_context)


def test_where_not_even_the_weights_fit_nothing_does() -> None:
    found = fitted(2.4e9)
    assert (found.fits, found.largest_batch, found.largest_context) == (False, 0, 0)


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_the_search_finds_the_last_that_fits(bound: int, most: int) -> None:
    assert largest(lambda number: number <= bound, most) == min(bound, most)


LADDER = "models/gpt2-5m"


def test_a_folder_says_what_the_ladder_says(ladder_cache: Path) -> None:
    [by_name], [by_folder] = (
        list(shapes_of(each, dtype=None).values()) for each in (LADDER, str(ladder_cache / "gpt2-5m"))
    )
    assert by_folder == by_name


def test_a_gguf_file_says_what_the_ladder_says(ladder_cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from phaselaw.ladder.gguf import export

    [by_name] = shapes_of(LADDER, dtype=None).values()
    [by_file] = shapes_of(str(export(str(ladder_cache / "gpt2-5m"), "f32", tmp_path).path), dtype=None).values()
    assert by_file[0] == by_name[0]


def test_another_number_format_changes_the_weights_and_nothing_else() -> None:
    [full], [half] = (list(shapes_of(LADDER, dtype=dtype).values()) for dtype in (None, "bf16"))
    assert isinstance(full, tuple) and isinstance(half, tuple)
    assert (full[1], half[1]) == (4, 2)
    halved = {name: getattr(full[0], name) / 2 for name in ("weights_bytes", "lookup_bytes")}
    assert half[0] == dataclasses.replace(full[0], **halved)


def test_what_is_beyond_a_models_positions_never_fits() -> None:
    found = fitted(1e15, context=8193)
    assert (found.fits, found.largest_batch, found.largest_context, found.beyond_positions) == (False, 0, 8192, True)


def test_what_is_no_model_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give a ladder model"):
        shapes_of(str(tmp_path), dtype=None)


def test_a_folder_without_a_shape_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    [found] = shapes_of(str(tmp_path), dtype=None).values()
    assert isinstance(found, str) and "n_layer" in found
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(AnalysisError, match="can't be read"):
        shapes_of(str(tmp_path), dtype=None)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(AnalysisError, match="no safetensors file"):
        shapes_of(str(tmp_path), dtype=None)


PLAIN = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 256}
LAYER = "model.layers.{}.mlp.up_proj"


def sized(folder: Path, config: dict, **tensors: tuple[str, list[int]]) -> Architecture:
    """The shape of a folder with such a config and such tensors, by type and shape."""
    (folder / "config.json").write_text(json.dumps(PLAIN | config))
    head, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at]}
    text = json.dumps(head).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    [found] = shapes_of(str(folder), dtype=None).values()
    assert isinstance(found, tuple) and found[1] == 2
    return found[0]


@pytest.mark.parametrize(
    ("how", "tensor"),
    [
        ({"quant_method": "gptq", "bits": 4}, {"qweight": ("I32", [8, 128]), "g_idx": ("I32", [64])}),
        ({"quant_method": "awq", "bits": 4}, {"qweight": ("I32", [64, 16]), "qzeros": ("I32", [1, 16])}),
        ({"load_in_4bit": True}, {"weight": ("U8", [4096, 1]), "weight.absmax": ("U8", [128])}),
        ({"quant_method": "mxfp4"}, {"proj_blocks": ("U8", [4, 16, 4, 16]), "proj_scales": ("U8", [4, 16, 4])}),
        ({"config_groups": {"group_0": {"weights": {"num_bits": 4}}}}, {"weight_packed": ("I32", [64, 16])}),
        ({"quant_method": "fp8"}, {"weight": ("F8_E4M3", [64, 128])}),
    ],
)  # fmt: skip
def test_of_a_quantised_model_the_weights_are_counted_not_what_they_are_packed_into(
    how: dict, tensor: dict, tmp_path: Path
) -> None:
    packed = {f"{LAYER.format(0)}.{name}": each for name, each in tensor.items()}
    model = sized(tmp_path, {"quantization_config": how}, **packed)
    assert model.params == 64 * 128
    assert model.weights_bytes < 2 * 64 * 128


def test_layers_that_predict_a_token_more_are_no_part_of_what_is_served(tmp_path: Path) -> None:
    layers = {f"{LAYER.format(index)}.weight": ("BF16", [64, 128]) for index in range(3)}
    model = sized(tmp_path, {"num_nextn_predict_layers": 1}, **layers, **{"mtp.fc.weight": ("BF16", [64, 128])})
    assert model.params == 2 * 64 * 128


def test_experts_that_no_key_states_are_found_in_the_tensors(tmp_path: Path) -> None:
    experts = {f"model.layers.0.mlp.experts.{index}.up_proj.weight": ("BF16", [64, 128]) for index in range(4)}
    model = sized(tmp_path, {"n_of_experts": 4}, **experts)
    assert (model.n_experts, model.unsized_experts) == (4, True)
