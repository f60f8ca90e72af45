"""What real Ollama servers answered, as recorded: decode steps, cache hits, queue waits, impossible durations."""

from collections import defaultdict

import pytest
from recordings import GEMMA3, NEW, OLD, SMOLLM2, recorded

from phaselaw.engines.served import timing_of
from phaselaw.records import Served
from phaselaw.servers.caches import FreshPrompts, Verdict, judge


def served(version: str, label: str) -> Served:
    found = recorded(version)[label].timing.served
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("version", "label", "step_ms", "bias"),
    [
        (OLD, f"warm, micro, 64, {SMOLLM2}", 15.33, -0.046),
        (OLD, f"warm, medium, 64, {SMOLLM2}", 13.23, -0.050),
        (NEW, f"warm, medium, 64, {SMOLLM2}", 10.45, -0.015),
    ],
)
def test_the_decode_step_is_the_clients_and_tr121s_projection_is_low(
    version: str, label: str, step_ms: float, bias: float
) -> None:
    reply, call = recorded(version)[label].reply, served(version, label)
    assert call.decode_step_ms == pytest.approx(step_ms, abs=0.005)
    assert call.decode_step_basis == "client"
    eval_ms, count = reply.served.decode_ms_server, reply.served.tokens_counted
    assert eval_ms is not None and count == 64 and call.decode_step_ms is not None
    assert eval_ms / count / call.decode_step_ms - 1 == pytest.approx(bias, abs=0.001)
    assert call.decode_step_ms_server == pytest.approx(eval_ms / (count - 1))


def test_the_servers_step_over_one_less_is_right_on_the_new_server_and_3_percent_low_on_the_old() -> None:
    for version, bias in ((NEW, 0.0), (OLD, -0.033)):
        call = served(version, f"warm, medium, 64, {SMOLLM2}")
        assert call.decode_step_ms_server is not None and call.decode_step_ms_client is not None
        assert call.decode_step_ms_server / call.decode_step_ms_client - 1 == pytest.approx(bias, abs=0.003)


@pytest.mark.parametrize(
    ("version", "label", "per_count", "per_step"),
    [
        (OLD, f"length 32, raw, {SMOLLM2}", -0.060, -0.029),
        (OLD, f"warm, micro, 64, {GEMMA3}", -0.063, -0.048),
        (OLD, f"warm, medium, 64, {GEMMA3}", -0.058, -0.043),
        (NEW, f"length 32, raw, {SMOLLM2}", -0.030, 0.001),
        (NEW, f"length 32, raw, {GEMMA3}", -0.031, 0.000),
        (NEW, f"warm, medium, 64, {GEMMA3}", -0.015, 0.000),
    ],
)
def test_the_bias_of_the_servers_figures_depends_on_version_model_and_length(
    version: str, label: str, per_count: float, per_step: float
) -> None:
    reply, call = recorded(version)[label].reply, served(version, label)
    eval_ms, count, step_ms = reply.served.decode_ms_server, reply.served.tokens_counted, call.decode_step_ms
    assert call.decode_step_basis == "client" and step_ms is not None and call.decode_step_ms_server is not None
    assert eval_ms is not None and count is not None
    assert eval_ms / count / step_ms - 1 == pytest.approx(per_count, abs=0.001)
    assert call.decode_step_ms_server / step_ms - 1 == pytest.approx(per_step, abs=0.001)


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("model", [SMOLLM2, GEMMA3])
def test_every_recorded_generation_gives_no_negative_time(version: str, model: str) -> None:
    generations = [
        exchange
        for label, exchange in recorded(version).items()
        if exchange.path == "/api/generate" and model in label and exchange.status == 200 and "leaves" not in label
    ]
    assert len(generations) > 10
    for exchange in generations:
        reply = exchange.reply
        for ms in (reply.served.load_ms, reply.served.prefill_ms_server, reply.served.decode_ms_server):
            assert ms is None or ms > 0
        if not reply.served.arrivals_ms:
            continue
        call = exchange.timing.served
        assert call is not None and (call.decode_step_ms is None or call.decode_step_ms > 0)


def test_a_duration_of_minus_2_to_the_63_is_none() -> None:
    reply = recorded(OLD)[f"length 1, raw, {GEMMA3}"].reply
    assert reply.figures["eval_duration_ms"] == -(2**63) / 1e6
    assert reply.served.decode_ms_server is None
    assert reply.served.prefill_ms_server is None


def test_a_negative_duration_is_none_though_its_prefill_stands() -> None:
    label = f"length 2, raw, {GEMMA3}"
    assert recorded(OLD)[label].reply.figures["eval_duration_ms"] < 0
    assert set(served(OLD, label).faults) == {"kv_decode", "e2e_kv"}


def test_an_absent_duration_is_none() -> None:
    label = f"length 1, raw, {SMOLLM2}"
    assert "eval_duration_ms" not in recorded(OLD)[label].reply.figures
    assert served(OLD, label).decode_step_ms is None
    assert recorded(OLD)[label].timing.prefill_ms == pytest.approx(43.66, abs=0.01)


def test_text_that_a_stop_sequence_held_back_to_the_end_costs_the_step_8_percent() -> None:
    reply, call = (
        recorded(NEW)[f"num_predict -1 with a stop, raw, {SMOLLM2}"].reply,
        served(NEW, f"num_predict -1 with a stop, raw, {SMOLLM2}"),
    )
    assert (len(reply.served.arrivals_ms), reply.served.tokens_counted) == (21, 26)
    assert call.decode_step_basis == "client_usage"
    assert call.decode_step_ms_server == pytest.approx(9.91, abs=0.01)
    assert call.decode_step_ms == pytest.approx(9.19, abs=0.01)


def test_an_end_token_is_counted_though_it_is_never_sent() -> None:
    reply = recorded(OLD)["early stop, chat model"].reply
    assert reply.done_reason == "stop"
    assert (len(reply.served.arrivals_ms), reply.served.tokens_counted) == (17, 18)
    assert served(OLD, "early stop, chat model").decode_step_basis == "client"


def fresh_prompts(version: str, model: str, *, raw: bool) -> FreshPrompts:
    """The first time that a loaded model saw each prompt, but for the very first, slow by its load."""
    labels = (
        (
            "length 1, raw",
            "length 32, raw",
            "long prompt 400 words, raw",
            "long prompt, other first word (prefix broken), raw",
        )
        if raw
        else ("warm, micro, 64", "warm, medium, 64")
    )
    fresh = defaultdict(list)
    for label in labels:
        reply = recorded(version)[f"{label}, {model}"].reply
        tokens, ms = reply.prompt_tokens, reply.served.prefill_ms_server
        if tokens is not None and ms is not None:
            fresh[tokens].append(ms)
    return fresh


def verdict(version: str, model: str, label: str) -> Verdict:
    reply = recorded(version)[f"{label}, {model}"].reply
    tokens = reply.prompt_tokens
    assert tokens is not None
    fresh = fresh_prompts(version, model, raw="raw" in label)
    return judge(tokens, reply.served.prefill_ms_server, fresh, served(version, f"{label}, {model}").decode_step_ms)


AGAIN = "same prompt again (prompt cache)"
LONG_AGAIN = "long prompt again (prompt cache), raw"


@pytest.mark.parametrize(
    ("version", "model", "label", "check"),
    [
        (OLD, SMOLLM2, AGAIN, "found"),
        (OLD, SMOLLM2, "same prompt a third time", "found"),
        (OLD, SMOLLM2, LONG_AGAIN, "found"),
        (NEW, SMOLLM2, AGAIN, "found"),
        (NEW, SMOLLM2, "same prompt a third time", "found"),
        (NEW, SMOLLM2, LONG_AGAIN, "found"),
        (NEW, GEMMA3, LONG_AGAIN, "found"),
        (OLD, GEMMA3, LONG_AGAIN, "fresh"),
        (OLD, GEMMA3, AGAIN, "undecidable"),
        (NEW, GEMMA3, AGAIN, "undecidable"),
    ],
)
def test_a_hit_is_found_by_its_time_and_only_where_it_can_be_told(
    version: str, model: str, label: str, check: str
) -> None:
    assert verdict(version, model, label).check == check


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("model", [SMOLLM2, GEMMA3])
@pytest.mark.parametrize(
    "label",
    ["warm, micro, 64", "warm, medium, 64", "length 1, raw", "long prompt, other first word (prefix broken), raw"],
)
def test_a_fresh_prompt_is_never_called_a_hit(version: str, model: str, label: str) -> None:
    assert verdict(version, model, label).check != "found"


def test_a_hit_takes_the_prefill_and_leaves_the_decode() -> None:
    reply = recorded(NEW)[f"{LONG_AGAIN}, {SMOLLM2}"].reply
    hit = timing_of(reply, 1, 16, verdict(NEW, SMOLLM2, LONG_AGAIN), server_times="prefill").served
    assert hit is not None
    faults = hit.faults
    assert set(faults) == {"prefill", "e2e_kv"}
    assert faults["prefill"].startswith("prompt_cache: ")


@pytest.mark.parametrize(("version", "step_ms"), [(OLD, (33.0, 38.0)), (NEW, (19.0, 24.0))])
def test_a_wait_for_a_slot_shows_in_the_queue_and_never_in_the_step(version: str, step_ms: tuple[float, float]) -> None:
    waits, steps = [], []
    for label, exchange in recorded(version).items():
        if "8 clients at once" not in label:
            continue
        reply, call = exchange.reply, served(version, label)
        assert reply.served.prefill_ms_server is not None and call.decode_step_ms is not None
        waits.append(reply.served.arrivals_ms[0] - (reply.served.load_ms or 0) - reply.served.prefill_ms_server)
        steps.append(call.decode_step_ms)
    assert len(waits) == 8
    assert sorted(wait > 1000 for wait in waits) == [False] * 4 + [True] * 4
    assert max(wait for wait in waits if wait < 1000) < 110
    assert all(step_ms[0] < step < step_ms[1] for step in steps)
