"""The profile of a decode step: whole operators a token, of decode alone, and a share of the step."""

import json

import pytest

torch = pytest.importorskip("torch")

from phaselaw.cli import main  # noqa: E402
from phaselaw.engines import hf_profile  # noqa: E402
from phaselaw.study.model import HfBackend, ModelEntry  # noqa: E402

pytestmark = pytest.mark.usefixtures("ladder_cache")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")


def profiled(name: str, *, device: str = "cpu", tokens: int = 4) -> hf_profile.Profile:
    backend = HfBackend(name="profile", kind="hf", device=device, threads=1)
    return hf_profile.profile_decode(backend, ModelEntry(name=name, kind="hf"), tokens=tokens, prompt_tokens=5)


def test_a_step_of_gpt2_has_its_matrix_products_and_norms_layer_by_layer(ladder_cache) -> None:
    del ladder_cache
    found = profiled("models/gpt2-5m")
    calls = {each.name: each.calls_per_token for each in found.operators}
    # Four projections a layer, a norm before attention and feed-forward, and a last one; the output projection once.
    assert calls["aten::addmm"] == 4 * 12
    assert calls["aten::native_layer_norm"] == 2 * 12 + 1
    assert calls["aten::argmax"] == 1
    assert found.n_layer == 12
    assert found.calls_per_token_and_layer == found.calls_per_token / 12


def test_the_counts_do_not_depend_on_the_prompt_or_the_number_of_steps() -> None:
    few, many = (profiled("models/tiny-gpt2", tokens=tokens) for tokens in (2, 6))
    assert few.calls_per_token == many.calls_per_token
    assert {each.name for each in few.operators} == {each.name for each in many.operators}


def test_the_busy_share_is_that_of_the_operators_that_compute() -> None:
    found = profiled("models/tiny-gpt2")
    computing = sum(each.ms_per_token for each in found.operators if each.computes and each.name.startswith("aten::"))
    assert found.busy_ms == pytest.approx(computing)
    assert found.busy_share == pytest.approx(found.busy_ms / found.profiled_step_ms)
    assert 0 < found.busy_share < 1
    assert not next(each for each in found.operators if each.name == "aten::view").computes


def test_the_command_says_it_in_words_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "models/tiny-gpt2", "--tokens", "2", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "operators: " in out
    assert "device busy: at most " in out
    assert main(["profile", "models/tiny-gpt2", "--tokens", "2", "--threads", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["n_layer"] == 2
    assert document["operators"]


@pytest.mark.parametrize("words", [["nothing/here"], ["models/tiny-gpt2", "--device", "tpu"]])
def test_what_cannot_be_profiled_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", *words]) in (1, 2)
    assert capsys.readouterr().err.strip().count("\n") == 0


@pytest.mark.gpu
@needs_cuda
def test_on_cuda_kernels_are_counted_and_the_gpu_waits_for_a_small_model() -> None:
    found = profiled("models/gpt2-5m", device="cuda", tokens=16)
    assert found.unit == "kernels"
    assert found.calls_per_token >= 12 * 5
    assert 0 < found.busy_share < 1
    assert found.busy_share == pytest.approx(found.busy_ms / found.step_ms)
