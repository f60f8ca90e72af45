"""Tiny models of many families, random weights: the tokens of generate, parameters counted, the cache really held."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from phaselaw.engines import hf
from phaselaw.engines.prompts import token_ids
from phaselaw.machine.footprint import Architecture
from phaselaw.plan.memory import shapes_of
from phaselaw.records import Request
from phaselaw.study.model import HfBackend, ModelEntry

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WINDOW, EXPERTS, USED, INNER = 8, 6, 2, 48
SHAPE = {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
         "intermediate_size": 96, "max_position_embeddings": 64, "initializer_range": 0.3,
         "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
GROUPED = {"num_key_value_heads": 2}
SLIDING = GROUPED | {"sliding_window": WINDOW}
ALTERNATE = ["sliding_attention", "full_attention"] * 2
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16}
STATES = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 8,
          "head_dim": 16, "layer_types": ["linear_attention", "full_attention"] * 2}  # fmt: skip
ONE_OF_EXPERTS = 3 * 64 * INNER


class Family(NamedTuple):
    config: str
    settings: dict[str, Any]
    one_expert: int = 0
    """Parameters of one expert; 0 where there are none."""
    layers_of_experts: int = 4


FAMILIES = {
    "gpt2 (tied)": Family("GPT2", {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 64}),
    "llama (grouped, untied)": Family("Llama", GROUPED | {"tie_word_embeddings": False}),
    "qwen3 (grouped, tied, wide heads)": Family("Qwen3", GROUPED | {"head_dim": 32, "tie_word_embeddings": True}),
    "mistral (all slide)": Family("Mistral", SLIDING),
    "gemma2 (every second slides)": Family(
        "Gemma2", SLIDING | {"head_dim": 16, "layer_types": ALTERNATE, "tie_word_embeddings": False}),
    "gemma3 (most slide, one KV head)": Family(
        "Gemma3Text", {"num_key_value_heads": 1, "head_dim": 32, "sliding_window": WINDOW, "tie_word_embeddings": False,
                       "layer_types": ["sliding_attention"] * 3 + ["full_attention"]}),
    "cohere2": Family("Cohere2", SLIDING | {"layer_types": ALTERNATE}),
    "falcon (one KV head)": Family("Falcon", {"multi_query": True, "new_decoder_architecture": False}),
    "gptneox (no groups)": Family("GPTNeoX", {"tie_word_embeddings": False}),
    "opt (learned positions)": Family("OPT", {"ffn_dim": 96, "word_embed_proj_dim": 64, "init_std": 0.3}),
    "deepseek (latent, experts)": Family(
        "DeepseekV3", LATENT | {"num_key_value_heads": 4, "n_routed_experts": EXPERTS, "num_experts_per_tok": USED,
                                "moe_intermediate_size": INNER, "first_k_dense_replace": 1, "n_group": 1,
                                "topk_group": 1, "n_shared_experts": 1}, ONE_OF_EXPERTS, 3),
    "mixtral": Family("Mixtral", GROUPED | {"num_local_experts": EXPERTS, "num_experts_per_tok": USED,
                                            "intermediate_size": INNER}, ONE_OF_EXPERTS),
    "qwen3 experts": Family("Qwen3Moe", GROUPED | {"num_experts": EXPERTS, "num_experts_per_tok": USED, "head_dim": 16,
                                                   "moe_intermediate_size": INNER}, ONE_OF_EXPERTS),
    "gpt-oss (slides, experts)": Family(
        "GptOss", SLIDING | {"head_dim": 16, "num_local_experts": EXPERTS, "num_experts_per_tok": USED,
                             "intermediate_size": INNER, "layer_types": ALTERNATE},
        ONE_OF_EXPERTS + 2 * INNER + 64),
    "qwen3-next (linear, experts)": Family(
        "Qwen3Next", GROUPED | STATES | {"num_experts": EXPERTS, "num_experts_per_tok": USED,
                                         "moe_intermediate_size": INNER, "shared_expert_intermediate_size": 32},
        ONE_OF_EXPERTS),
    "mamba (states only)": Family("Mamba", {"state_size": 8, "expand": 2, "conv_kernel": 4, "time_step_rank": 4}),
    "jamba (states, experts)": Family(
        "Jamba", GROUPED | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "mamba_dt_rank": 4,
                            "expert_layer_period": 2, "expert_layer_offset": 1, "intermediate_size": INNER,
                            "num_experts": EXPERTS, "num_experts_per_tok": USED}, ONE_OF_EXPERTS, 2),
    "lfm2 (convolutions)": Family("Lfm2", GROUPED | {"conv_L_cache": 3, "layer_types": ["conv", "full_attention"] * 2}),
}  # fmt: skip
BACKEND = HfBackend(name="hf_test", kind="hf", threads=1)
REQUEST = Request(prompt=None, prompt_tokens=11, gen_tokens=12, batch_size=2, study_seed=5, seed=1, round=0)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Path]:
    """A family and the folder of a model of it."""
    made: Family = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("model")
    kind = getattr(transformers, f"{made.config}Config")
    torch.manual_seed(3)
    transformers.AutoModelForCausalLM.from_config(kind(**SHAPE | made.settings)).save_pretrained(folder)
    return made, folder


@pytest.fixture(scope="module")
def loaded(family):
    engine = hf.create(BACKEND)
    yield engine.load(ModelEntry(name=str(family[1]), kind="hf"))
    engine.close()


def test_tokens_equal_generates(loaded) -> None:
    ids = torch.tensor([token_ids(11, 5, 128)] * 2)
    output = loaded._weights.generate(ids, max_new_tokens=12, min_new_tokens=12, do_sample=False, eos_token_id=None,
                                      pad_token_id=0, attention_mask=torch.ones_like(ids))  # fmt: skip
    generated = output[:, 11:]
    assert len(set(generated[0].tolist())) > 2, "a wrong position would not show"
    expected = hashlib.sha256(generated.numpy().astype("<i8").tobytes()).hexdigest()
    assert loaded.generate(REQUEST).output_sha256 == expected


def test_parameters_are_counted_in_all_and_active(family, loaded) -> None:
    made, _ = family
    total = sum(tensor.numel() for tensor in loaded._weights.parameters())
    unused = made.layers_of_experts * (EXPERTS - USED) * made.one_expert
    assert loaded.info.params_millions_measured == total / 1e6
    assert loaded.info.params_millions_active == pytest.approx((total - unused) / 1e6)
    assert (loaded.info.n_experts, loaded.info.n_experts_used) == ((EXPERTS, USED) if unused else (None, None))


def held_bytes(cache) -> int:
    """Bytes of a cache's tensors, with the token that windows let go of at the end of the step that needed it."""
    states = [each for layer in cache.layers for name in ("conv_states", "recurrent_states")
              for each in getattr(layer, name, {}).values()]  # fmt: skip
    pairs = [each for layer in cache.layers for each in (getattr(layer, "keys", None), getattr(layer, "values", None))]
    let_go = [each[:, :, :1] for layer in cache.layers if getattr(layer, "is_sliding", False)
              and layer.cumulative_length >= layer.sliding_window for each in (layer.keys, layer.values)]  # fmt: skip
    return sum(each.nbytes for each in (*states, *pairs, *let_go) if each is not None)


@torch.inference_mode()
def test_the_cache_is_what_transformers_holds(family, loaded) -> None:
    [(of_folder, _)] = shapes_of(str(family[1]), dtype=None).values()
    of_engine = Architecture.of(dataclasses.asdict(loaded.info))
    for tokens in (5, 12, 40):
        ids = torch.tensor([token_ids(tokens, 1, 128)])
        output = loaded._weights(input_ids=ids[:, :-1], use_cache=True)
        output = loaded._weights(input_ids=ids[:, -1:], use_cache=True, **{loaded._cache: output[loaded._cache]})
        held = held_bytes(output[loaded._cache])
        assert of_engine.cache_bytes(tokens, 4) == held
        assert of_folder.cache_bytes(tokens, 4) == held


def test_a_folder_says_of_parameters_what_the_engine_counts(family, loaded) -> None:
    [(of_folder, _)] = shapes_of(str(family[1]), dtype=None).values()
    of_engine = Architecture.of(dataclasses.asdict(loaded.info))
    for name in ("params", "weights_bytes", "lookup_params", "expert_params", "active_params", "n_positions", "cache"):
        # A file also holds a few numbers that are no parameters, such as an expert's bias in routing.
        said, counted = getattr(of_folder, name), getattr(of_engine, name)
        assert said == (counted if name in ("cache", "n_positions") else pytest.approx(counted, rel=2e-4)), name
