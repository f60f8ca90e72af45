"""The ladder is TR121's."""

import subprocess
import sys

import pytest

from phaselaw.ladder.spec import LADDER, ladder_model

# TR121, hf_model_architecture and resolved parameters: layers, width, heads, inner width, parameters.
TR121 = {
    "tiny-gpt2": (2, 2, 2, None, 102_714),
    "gpt2-5m": (12, 80, 2, 320, 5_036_720),
    "gpt2-25m": (3, 384, 2, 1536, 25_016_064),
    "gpt2-45m": (6, 512, 8, None, 45_171_200),
    "gpt2-50m": (8, 512, 2, 2048, 51_475_968),
    "gpt2-75m": (5, 768, 2, 3072, 74_824_704),
    "gpt2-100m": (8, 768, 2, 3072, 96_088_320),
}


def test_the_ladder_is_tr121s_seven_models_smallest_first() -> None:
    ours = {m.name: (m.n_layer, m.n_embd, m.n_head, m.n_inner, m.params) for m in LADDER}
    assert ours == TR121
    assert list(ours) == list(TR121)
    assert {(m.vocab_size, m.n_positions) for m in LADDER} == {(50257, 1024)}


@pytest.mark.parametrize("model", LADDER, ids=lambda model: model.name)
def test_a_stated_parameter_count_follows_from_the_architecture(model) -> None:
    d, inner = model.n_embd, model.inner_width
    block = 4 * d + (3 * d * d + 3 * d) + (d * d + d) + (d * inner + inner) + (inner * d + d)
    assert model.params == model.vocab_size * d + model.n_positions * d + model.n_layer * block + 2 * d


def test_a_model_is_found_with_and_without_its_prefix() -> None:
    assert ladder_model("models/gpt2-25m") is ladder_model("gpt2-25m") is LADDER[2]


@pytest.mark.parametrize("name", ["gpt2", "models/gpt2", "other/gpt2-25m", "models/models/gpt2-25m", ""])
def test_a_name_that_is_not_the_ladders_is_none(name: str) -> None:
    assert ladder_model(name) is None


def test_the_specification_imports_nothing_heavy() -> None:
    script = (
        "import sys, phaselaw.ladder.spec\n"
        "sys.exit(' '.join({'numpy', 'torch', 'platformdirs'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
