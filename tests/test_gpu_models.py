"""``benchmarks/gpu_models.py`` on a CPU: both ways to decode agree, a step reads nothing back, bytes by closed form."""

import pytest

import gpu_models
from gpu_models import TINY, Cell, governs, least_read_bytes, made

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def model(name: str = "tiny-a"):
    return made(TINY[name], device="cpu", dtype="float32")


def prompt(batch: int = 2):
    return torch.randint(0, 256, (1, 8), generator=torch.Generator().manual_seed(1)).repeat(batch, 1)


@pytest.mark.parametrize("name", list(TINY))
def test_on_a_static_cache_the_tokens_are_those_of_eager_decode_call_after_call(name: str) -> None:
    torch.manual_seed(3)
    weights = model(name)
    expected = gpu_models.eager(weights, prompt(), 12)().tokens
    call = gpu_models.static(weights, prompt(), 12)
    assert expected.shape == (2, 12)
    assert all(torch.equal(call().tokens, expected) for _ in range(2))


def test_the_step_that_is_captured_reads_nothing_back_from_the_device() -> None:
    """On tensors without values a read-back has no answer and fails, as it fails a capture: a stand-in for one."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        weights = model("tiny-b")
        tokens = gpu_models.static(weights, torch.zeros(2, 8, dtype=torch.long), 3)().tokens
        assert tokens.shape == (2, 3)
        with pytest.raises(DataDependentOutputException):
            tokens[0, 0].item()


@pytest.mark.parametrize(("name", "tied"), [("tiny-a", True), ("tiny-b", False)])
def test_a_step_reads_each_weight_once_a_row_of_an_untied_embedding_and_the_cache(name: str, tied: bool) -> None:
    weights, width = model(name), TINY[name]["hidden_size"]
    whole = sum(each.numel() for each in weights.parameters()) * 4
    cache = (
        2 * 2 * (2 * width // 4) * 10 * 3 * 4
    )  # keys and values, layers, 2 heads of a quarter, context, batch, bytes
    embedding = 0 if tied else (256 - 3) * width * 4
    assert least_read_bytes(weights, batch=3, context=10) == whole - embedding + cache


def test_of_experts_a_step_reads_those_that_some_token_goes_to() -> None:
    weights = model("moe-tiny")
    inside = 2 * 4 * 3 * 32 * 64 * 4  # layers, experts, matrices of 32 x 64, bytes
    whole = least_read_bytes(weights, batch=10**6, context=0)
    assert whole - least_read_bytes(weights, batch=1, context=0) == pytest.approx(inside / 2)
    assert whole - least_read_bytes(weights, batch=2, context=0) == pytest.approx(inside / 4)


@pytest.mark.parametrize(
    ("eager_ms", "graph_ms", "share", "expected"),
    [
        (10.0, 5.0, 0.3, "launches"),
        (10.0, 9.0, 0.6, "bandwidth"),
        (10.0, 9.0, 0.3, "neither"),
        (10.0, None, 0.6, "bandwidth"),
        (10.0, None, 0.3, "unknown: no graph beside"),
        (10.0, 5.0, None, "launches"),
    ],
)
def test_what_governs_a_step_follows_the_rule(
    eager_ms: float, graph_ms: float | None, share: float | None, expected: str
) -> None:
    cell = Cell(
        model="m", params_millions=1.0, dtype="bfloat16", batch=1, prompt=8, prefill_ms=1.0, eager_step_ms=eager_ms,
        gpu_peak_mb=None, least_read_mb=1.0, read_share=share, graph_step_ms=graph_ms,
    )  # fmt: skip
    assert governs(cell) == expected


def test_a_model_that_cannot_be_made_or_captured_is_told_and_the_rest_is_measured(monkeypatch) -> None:
    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(gpu_models, "static", refuse)
    models = {"broken": TINY["tiny-a"] | {"num_attention_heads": 0}, "tiny-a": TINY["tiny-a"]}
    plan = gpu_models.Plan(
        device="cpu", dtype="float32", models=models, batches=(1,), prompts=(8,), gen_tokens=2, repetitions=1
    )
    (fault, none), (cell, rows) = gpu_models.measured(plan, None, deadline=float("inf"))
    assert fault.startswith("broken: ") and none == []
    assert cell.no_graph == "RuntimeError: operation not permitted when stream is capturing"
    assert [row[4] for row in rows] == ["prefill", "kv_decode", "e2e_kv"]


def test_when_time_is_up_no_model_is_begun() -> None:
    plan = gpu_models.Plan(
        device="cpu", dtype="float32", models=TINY, batches=(1,), prompts=(8,), gen_tokens=2, repetitions=1
    )
    told = [found for found, _ in gpu_models.measured(plan, None, deadline=0.0)]
    assert told == [f"{name}: no time was left" for name in TINY]


@pytest.mark.parametrize(
    ("name", "millions"),
    [("llama-0.5b", 494), ("llama-1b", 1236), ("llama-3b", 3213), ("llama-8b", 8030), ("moe-8x0.4b", 3100)],
)
def test_the_models_have_the_sizes_of_their_names(name: str, millions: float) -> None:
    """On torch's device meta, where a tensor has a shape and no memory."""
    weights = made(gpu_models.MODELS[name], device="meta", dtype="bfloat16")
    assert sum(each.numel() for each in weights.parameters()) / 1e6 == pytest.approx(millions, rel=0.05)


def test_parameters_in_another_number_format_are_refused(monkeypatch) -> None:
    import transformers

    kept = transformers.AutoModelForCausalLM.from_config
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM, "from_config", lambda config, **_: kept(config, dtype=torch.float64)
    )
    with pytest.raises(TypeError, match=r"torch\.float32 was asked for; some parameters are torch\.float64"):
        model()
