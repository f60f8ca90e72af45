"""What study check says of models that transformers can't measure here."""

import json
from pathlib import Path

import pytest

from phaselaw.measure.begin import lacks
from phaselaw.study.model import Scenario, Study

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


@pytest.mark.parametrize(
    ("config", "files", "line"),
    [
        (CONFIG, ["model.safetensors", "tokenizer.json"], None),
        (CONFIG | {"architectures": None}, ["model.safetensors", "tokenizer.json"], None),
        (CONFIG, ["pytorch_model.bin", "tokenizer.json"], "only .bin files, which could run code; convert them"),
        (CONFIG, ["tokenizer.json"], "no weights as safetensors; put it there"),
        (CONFIG | {"architectures": ["BertForMaskedLM"]}, ["model.safetensors", "tokenizer.json"],
         "a BertForMaskedLM, no causal language model"),
        (CONFIG | {"is_encoder_decoder": True}, ["model.safetensors", "tokenizer.json"], "an encoder with a decoder"),
        ({"model_type": "odd", "auto_map": {"AutoModelForCausalLM": "odd.OddForCausalLM"}},
         ["model.safetensors", "tokenizer.json"], "only by code of its own, which is never run here"),
        (CONFIG, ["model.safetensors"], "no tokenizer for a text; give prompts as prompt_tokens"),
    ],
)  # fmt: skip
def test_a_model_of_hf_that_cant_be_measured_is_found_in_a_line(
    config: dict, files: list[str], line: str | None, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in files:
        (tmp_path / name).write_bytes(b"")
    asked = Study.model_validate({
        "run_name": "x", "scenarios": [{"name": "s", "prompt": "Hello"}], "backends": [{"name": "b", "kind": "hf"}],
        "models": [{"name": str(tmp_path), "kind": "hf"}],
    })  # fmt: skip
    found = [lack.what for lack in lacks(asked)]
    assert len(found) == (line is not None)
    assert line is None or line in found[0]
    exact = asked.model_copy(update={"scenarios": (Scenario(name="s", prompt_tokens=3),)})
    assert len(lacks(exact)) == (line is not None and "tokenizer" not in line)
