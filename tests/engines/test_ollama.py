"""The engine ollama, against a stand-in that replays recordings of real servers, and against servers that misbehave."""

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ollama_standin import OllamaStandIn, standing_in
from recordings import GEMMA3, NEW, OLD, SMOLLM2
from scripted_server import CHUNKED_HEAD, LAST_CHUNK, answering, chunk, read_request, reply, scripted

from phaselaw.engines import Doubt, ollama
from phaselaw.engines.ollama import PROBE_WORDS, address, full_name, model_info
from phaselaw.engines.prompts import WORDS, Nonces, text_of
from phaselaw.errors import EngineError
from phaselaw.measure.calls import measure
from phaselaw.records import Call, Request, Timing, to_jsonable
from phaselaw.rundir.columns import rows_of
from phaselaw.study.model import ModelEntry, OllamaBackend, Study

PROMPT = "Explain the difference between latency and throughput in simple terms for engineers."


def backend(url: str, **settings: Any) -> OllamaBackend:
    return OllamaBackend(name="ollama", kind="ollama", url=url, **settings)


def ask(round: int | None = 0, *, prompt: str = PROMPT, gen_tokens: int = 64) -> Request:
    return Request(
        prompt=prompt, prompt_tokens=None, gen_tokens=gen_tokens, batch_size=1, study_seed=42, seed=1, round=round
    )


@pytest.fixture(params=[OLD, NEW])
def standin(request: pytest.FixtureRequest) -> OllamaStandIn:
    return OllamaStandIn(request.param)


@pytest.fixture
def url(standin: OllamaStandIn) -> Iterator[str]:
    with standing_in(standin) as address:
        yield address


def loaded(url: str, model: str = SMOLLM2, **settings: Any) -> Any:
    return ollama.create(backend(url, **settings)).load(ModelEntry(name=model, kind="ollama"))


def test_a_model_is_what_the_server_measured_not_its_label(url: str) -> None:
    info = loaded(url).info
    assert info.params_millions_measured == 134.515008
    assert (info.n_layer, info.n_embd, info.n_head, info.n_positions) == (30, 576, 9, 8192)
    assert (info.family, info.quantization_level, info.parameter_size_raw) == ("llama", "Q4_1", "134.52M")
    assert info.weights_bytes in (98363007, 98362745)
    assert info.weights_sha256 is not None


def test_a_warmup_after_a_load_is_cold_and_its_load_is_told_apart(url: str) -> None:
    served = loaded(url).generate(ask(round=None)).served
    assert served.model_was_loaded is False
    assert served.load_ms > 3, "at a hundredth of the recorded time"
    assert served.ttft_ms > served.load_ms
    assert served.cache_check == "fresh"


def test_a_measured_call_is_warm_fresh_and_step_true(url: str) -> None:
    timing = loaded(url).generate(ask())
    served = timing.served
    assert served.model_was_loaded is True
    assert served.cache_check == "fresh"
    assert not served.faults
    assert served.decode_step_basis == "client"
    assert served.decode_step_ms == (served.arrivals_ms[-1] - served.arrivals_ms[0]) / 63
    assert served.decode_step_ms_server == pytest.approx(timing.kv_decode_ms / 63)
    assert timing.gen_tokens_raw == 64
    assert len(served.arrivals_ms) == 64
    assert timing.done_reason == "length"
    assert served.queue_ms >= 0


def test_a_call_is_greedy_whole_and_never_cut_silently(url: str, standin: OllamaStandIn) -> None:
    loaded(url).generate(ask(round=None, gen_tokens=8))
    sent = standin.requests[-1]
    assert sent["options"] == {"temperature": 0, "top_p": 1, "seed": 42, "num_predict": 8}
    assert sent["stream"] is True and sent["truncate"] is False
    assert "raw" not in sent and "keep_alive" not in sent and "think" not in sent


def test_the_studys_options_and_settings_are_sent(url: str, standin: OllamaStandIn) -> None:
    settings = {"options": {"temperature": 0.5, "num_thread": 2}, "keep_alive": "1h", "context_length": 2048,
                "raw": True, "think": False}  # fmt: skip
    loaded(url, **settings).generate(ask(round=None, gen_tokens=8))
    sent = standin.requests[-1]
    assert sent["options"]["temperature"] == 0.5
    assert (sent["options"]["num_thread"], sent["options"]["num_ctx"]) == (2, 2048)
    assert (sent["keep_alive"], sent["raw"], sent["think"]) == ("1h", True, False)


def test_no_prompt_begins_with_a_word_that_the_loaded_model_has_seen(url: str, standin: OllamaStandIn) -> None:
    model = loaded(url)
    for round in (None, 0, 1, 2):
        model.generate(ask(round, gen_tokens=2))
    prompts = [sent["prompt"] for sent in standin.requests if sent.get("prompt")]
    repeated = [prompt for prompt in prompts if prompts.count(prompt) > 1]
    assert len(repeated) == 2 and len(repeated[0].split()) > 512, "only the probe repeats its long prompt"
    firsts = [prompt.split()[0] for prompt in dict.fromkeys(prompts)]
    assert len(set(firsts)) == len(firsts) == 7
    assert prompts[0] == f"{WORDS[0]} {PROMPT}"


def test_a_model_that_others_prompted_is_unloaded_first(url: str, standin: OllamaStandIn) -> None:
    standin.loaded.add(SMOLLM2)
    loaded(url)
    assert standin.loaded == set()


def test_the_probe_says_whether_this_server_remembers(url: str) -> None:
    engine = ollama.create(backend(url))
    engine.load(ModelEntry(name=SMOLLM2, kind="ollama")).generate(ask())
    probe = engine.describe().settings["cache_probes"][SMOLLM2]
    assert probe["verdict"] == "found"
    assert probe["tokens"] == 891
    assert probe["repeated_ms"] < 0.05 * probe["fresh_ms"]


def test_a_server_that_reuses_nothing_is_probed_so() -> None:
    with standing_in(OllamaStandIn(OLD)) as url:
        model = loaded(url, GEMMA3)
        timing = model.generate(ask())
    assert model.probe["verdict"] == "fresh"
    assert timing.served.cache_check == "undecidable", "so few tokens cost too few decode steps to tell"


class CutsProbes(OllamaStandIn):
    """It ends the first replies to a probe's long prompt without a last line, as Ollama's repetition guard does."""

    def __init__(self, cuts: int) -> None:
        super().__init__(NEW)
        self.cuts, self.cut_prompts = cuts, []

    def _generate(self, connection: socket.socket, asked: dict[str, Any]) -> None:
        if self.cuts and len(asked.get("prompt", "").split()) > PROBE_WORDS:
            self.cuts -= 1
            self.cut_prompts.append(asked["prompt"])
            connection.sendall(CHUNKED_HEAD + chunk(json.dumps(TOKEN).encode() + b"\n") + LAST_CHUNK)
        else:
            super()._generate(connection, asked)


def test_a_cut_probe_is_made_again_with_another_prompt() -> None:
    with standing_in(server := CutsProbes(3)) as url:
        model = loaded(url)
        assert model.generate(ask()).served.cache_check == "fresh"
    assert model.probe["verdict"] == "found"
    # Its first word, ours, differs in any case.
    assert len({prompt.partition(" ")[2] for prompt in server.cut_prompts}) > 1


def test_a_probe_that_is_always_cut_says_so_after_three_more_tries() -> None:
    with standing_in(server := CutsProbes(99)) as url:
        model = loaded(url)
        model.generate(ask())
    assert "connection_lost" in model.probe["failed"]
    assert len({prompt.partition(" ")[2] for prompt in server.cut_prompts}) == 4


def test_an_answer_from_the_cache_is_an_error_for_prefill_and_not_for_decode() -> None:
    standin = OllamaStandIn(NEW)
    with standing_in(standin) as url:
        model = loaded(url)
        model.generate(ask(0))
        standin._remembers_everything = True
        timing = model.generate(ask(1))
    assert timing.served.cache_check == "found"
    rows = {row["mode"]: row for row in rows_of_call(timing)}
    assert rows["prefill"]["status"] == rows["e2e_kv"]["status"] == "error"
    assert "prompt_cache" in rows["prefill"]["error"]
    assert rows["prefill"]["latency_ms"] is None
    assert rows["kv_decode"]["status"] == "ok"
    assert rows["kv_decode"]["latency_ms"] == pytest.approx(timing.served.decode_step_ms * 64)


def test_cold_calls_are_each_unloaded_first(url: str, standin: OllamaStandIn) -> None:
    model = loaded(url, cold=True)
    timings = [model.generate(ask(round, gen_tokens=4)) for round in (None, 0, 1)]
    assert [timing.served.model_was_loaded for timing in timings] == [False] * 3
    assert all(timing.served.load_ms > 3 for timing in timings)
    unloads = [sent for sent in standin.requests if sent.get("keep_alive") == 0]
    assert len(unloads) == 2


def test_when_the_words_are_spent_the_model_is_unloaded_and_loaded_again(url: str, standin: OllamaStandIn) -> None:
    model = loaded(url)
    model.generate(ask(0, gen_tokens=1))
    model._nonces._left.clear()
    before = len(standin.requests)
    timing = model.generate(ask(1, gen_tokens=2))
    assert timing.served.model_was_loaded is True, "the reload is no part of the call"
    kinds = ["unload" if "keep_alive" in sent else "prompt" if sent["prompt"] else "load" for sent in standin.requests]
    assert kinds[before:] == ["unload", "load", "prompt"]


def test_a_model_that_is_kept_no_longer_than_a_call_is_loaded_before_a_measured_one(
    url: str, standin: OllamaStandIn
) -> None:
    timing = loaded(url, keep_alive=0).generate(ask(0, gen_tokens=2))
    assert timing.served.model_was_loaded is True
    assert standin.requests[-1]["keep_alive"] == 0 and not any(
        sent.get("keep_alive") == 0 for sent in standin.requests if not sent["prompt"]
    )


def test_a_templates_head_is_cached_from_the_second_prompt_on_and_never_raw(url: str) -> None:
    model = loaded(url)
    timings = [model.generate(ask(None, gen_tokens=2)) for _ in range(2)]
    assert [timing.served.head_cached for timing in timings] == [False, True]
    raw = loaded(url, raw=True)
    assert [raw.generate(ask(None, gen_tokens=2)).served.head_cached for _ in range(2)] == [False, False]


def test_a_missing_model_says_how_to_fetch_it(url: str) -> None:
    with pytest.raises(EngineError, match=r"ollama pull no-such:1b") as caught:
        loaded(url, "no-such:1b")
    assert caught.value.kind == "missing_model"


def test_lacking_names_missing_models_and_an_absent_server(url: str) -> None:
    models = [ModelEntry(name=name, kind="ollama") for name in (SMOLLM2, "qwen2.5:7b")]
    assert ollama.lacking(backend(url), ()) == []
    (line,) = ollama.lacking(backend(url), models)
    assert line.endswith("ollama pull qwen2.5:7b")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    (line,) = ollama.lacking(backend(f"http://127.0.0.1:{free}"), models)
    assert "connection refused" in line and "ollama serve" in line


def test_a_ladder_model_that_is_lacking_is_to_be_made_not_pulled(url: str) -> None:
    ladder = ModelEntry(name="models/gpt2-25m:f32", kind="ollama", same_as="models/gpt2-25m")
    (line,) = ollama.lacking(backend(url), [ladder])
    assert "phaselaw models export gpt2-25m" in line and "ollama create models/gpt2-25m:f32" in line
    assert "pull" not in line


def test_a_list_of_models_that_fails_is_a_warning_and_the_first_call_decides(url: str, standin: OllamaStandIn) -> None:
    standin.lists_fail = True
    (line,) = ollama.lacking(backend(url), [ModelEntry(name=SMOLLM2, kind="ollama")])
    assert isinstance(line, Doubt) and "calls decide" in line
    assert loaded(url).generate(ask(round=None, gen_tokens=4)).gen_tokens_raw == 4


def test_lacking_tells_another_server_from_ollama() -> None:
    with scripted(answering(reply(b'{"version": 3}'))) as url:
        (line,) = ollama.lacking(backend(url), ())
    assert "no Ollama" in line


def rows_of_call(timing: Timing) -> list[dict[str, Any]]:
    cell = study("http://x").cells()[0]
    call = Call(
        call_id="c", call_idx=0, cell=cell, task_idx=0, is_warmup=False, warmup_idx=None, rep=0, status="ok",
        error=None, started_at_unix=0.0, process_idx=0, calls_since_process_start=0, calls_since_model_load=0,
        calls_since_shape_first_seen=0, load_ms=None, timing=timing,
    )  # fmt: skip
    return list(rows_of(call, prompt=PROMPT, params_millions_config=None, params_millions_measured=134.5))


def study(url: str, **settings: Any) -> Study:
    return Study.model_validate(
        {
            "run_name": "t",
            "gen_tokens": 64,
            "repetitions": 2,
            "scenarios": [{"name": "medium", "prompt": PROMPT}],
            "backends": [{"name": "ollama", "kind": "ollama", "url": url, **settings}],
            "models": [{"name": SMOLLM2, "kind": "ollama"}],
        }
    )


def test_a_run_has_tr121s_columns_filled_and_kv_decode_step_true(url: str) -> None:
    asked = study(url)
    events = list(measure(asked, engines={"ollama": ollama.create(asked.backends[0])}))
    calls = [event for event in events if isinstance(event, Call)]
    assert [(call.status, call.is_warmup) for call in calls] == [("ok", True), ("ok", False), ("ok", False)]
    rows = {row["mode"]: row for row in rows_of(calls[-1], prompt=PROMPT, params_millions_config=None,
                                                params_millions_measured=1.0)}  # fmt: skip
    decode = rows["kv_decode"]
    assert decode["latency_ms"] == decode["decode_step_ms"] * 64 == decode["decode_step_ms_client"] * 64
    assert decode["kv_decode_ms_equiv"] == pytest.approx(decode["kv_decode_ms"])
    assert rows["e2e_kv"]["latency_ms"] == decode["latency_ms"] + rows["prefill"]["prefill_ms"]
    for column in ("ollama_wall_ms", "ollama_total_duration_ms", "ollama_load_ms", "ollama_done_reason"):
        assert decode[column] is not None
    assert decode["ttft_ms"] < decode["client_e2e_ms"] <= decode["ollama_wall_ms"]
    assert 0 <= decode["itl_p50_ms"] <= decode["itl_p99_ms"]
    assert decode["prompt_tokens_raw"] == 22


# Servers that misbehave: a stand-in for all but /api/generate.


def misbehaving(answer: bytes | Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    standin = OllamaStandIn(NEW)

    def script(connection: socket.socket) -> None:
        while request := read_request(connection):
            head, _, body = request.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            if path != "/api/generate":
                connection.sendall(standin._answer(path, json.loads(body) if body else {}))
            elif isinstance(answer, bytes):
                connection.sendall(answer)
                return
            else:
                answer(connection)
                return

    return script


def outcome(answer: bytes | Callable[[socket.socket], None], **settings: Any) -> Timing:
    with scripted(misbehaving(answer)) as url:
        timing: Timing = loaded(url, **settings).generate(ask(None, gen_tokens=4))
    return timing


def stream(*lines: dict[str, Any] | bytes, whole: bool = True) -> bytes:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return CHUNKED_HEAD + b"".join(chunk(text + b"\n") for text in texts) + (LAST_CHUNK if whole else b"")


TOKEN = {"response": "x", "done": False}
DONE = {"response": "", "done": True, "done_reason": "length", "prompt_eval_count": 20, "eval_count": 2,
        "prompt_eval_duration": 5_000_000, "eval_duration": 3_000_000, "total_duration": 9_000_000}  # fmt: skip

FAULTS = {
    "404": (reply(b'{"error":"model not found"}', status="404 Not Found"), "missing_model"),
    "500": (reply(b'{"error":"out of memory"}', status="500 Oops"), "http_500"),
    "429": (reply(b"{}", status="429 Too Many", headers="Retry-After: 3\r\n"), "http_429"),
    "cut mid-stream": (stream(TOKEN, whole=False), "connection_lost"),
    "no last line, and not a token": (stream(), "no_tokens"),
    "no JSON": (stream(TOKEN, b"{nope"), "bad_reply"),
    "no object": (stream(TOKEN, b"[1]"), "bad_reply"),
    "garbage": (b"\x00\x01\x02", "bad_reply"),
    "an error mid-stream": (stream(TOKEN, {"error": "llama runner died\nbadly"}), "server_error"),
    "an endless stream": (stream(*[TOKEN] * 1200, DONE), "endless"),
    "no token": (stream({"response": "", "done": True, "done_reason": "stop"}), "no_tokens"),
    "a cut prompt": (stream(TOKEN, TOKEN, DONE | {"prompt_eval_count": 5}), "prompt_cut"),
}


@pytest.mark.parametrize(("answer", "kind"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_an_engine_error_of_one_line(answer: bytes, kind: str) -> None:
    with pytest.raises(EngineError) as caught:
        outcome(answer)
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)


def test_a_reply_without_its_last_line_is_an_early_stop_where_the_transfer_was_whole() -> None:
    timing = outcome(stream(TOKEN, TOKEN | {"response": "y"}))
    assert (timing.done_reason, timing.gen_tokens_raw) == ("cut_by_server", 2)
    assert outcome(stream(*[TOKEN, TOKEN | {"response": " x "}] * 16)).done_reason == "repetition_guard"


def test_a_prompt_that_fills_the_context_was_cut() -> None:
    with pytest.raises(EngineError, match="context_length") as caught:
        outcome(stream(TOKEN, TOKEN, DONE | {"prompt_eval_count": 256}), context_length=256)
    assert caught.value.kind == "prompt_cut"


def test_a_server_that_hangs_is_given_up() -> None:
    with pytest.raises(EngineError) as caught:
        outcome(lambda connection: connection.recv(1) and None, idle_timeout_s=0.05)
    assert caught.value.kind == "timeout"


def test_hidden_thinking_is_counted_as_tokens() -> None:
    thought = {"thinking": "hm", "response": "", "done": False}
    timing = outcome(stream({"response": "", "done": False}, thought, thought, TOKEN, TOKEN, DONE | {"eval_count": 4}))
    assert timing.gen_tokens_raw == 4
    assert timing.served is not None
    assert timing.served.thinking_tokens == 2
    assert len(timing.served.arrivals_ms) == 4


def test_a_cached_count_of_the_server_decides() -> None:
    hit = outcome(stream(TOKEN, TOKEN, DONE | {"prompt_eval_cached_count": 19}))
    head = outcome(stream(TOKEN, TOKEN, DONE | {"prompt_eval_cached_count": 6}))
    assert hit.served is not None and head.served is not None
    assert (hit.served.cache_check, head.served.cache_check) == ("found", "fresh")


ODD_DURATIONS = [None, 0, -1, -(2**63), True, "12", 1e40, float("inf"), float("nan")]


@pytest.mark.parametrize("value", ODD_DURATIONS)
def test_odd_durations_make_faults_never_a_traceback_or_a_negative_latency(value: object) -> None:
    odd = dict.fromkeys(("prompt_eval_duration", "eval_duration", "load_duration", "total_duration"), value)
    timing = outcome(stream(TOKEN, TOKEN, DONE | odd))
    for row in rows_of_call(timing):
        assert row["status"] == "error" or row["latency_ms"] > 0
    assert json.dumps(to_jsonable(timing), allow_nan=False)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        (":1234", "http://127.0.0.1:1234"),
        ("1.2.3.4:1234", "http://1.2.3.4:1234"),
        ("example.com", "http://example.com:11434"),
        ("example.com:1234", "http://example.com:1234"),
        ("example.com:66000", "http://example.com:11434"),
        ("example.com:-1", "http://example.com:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:1337", "http://[::1]:1337"),
        ("[::]:1337", "http://[::1]:1337"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        (" 1.2.3.4 ", "http://1.2.3.4:11434"),
        ('"1.2.3.4"', "http://1.2.3.4:11434"),
        ("' 1.2.3.4 '", "http://1.2.3.4:11434"),
        ("http://1.2.3.4", "http://1.2.3.4:80"),
        ("http://1.2.3.4:8080", "http://1.2.3.4:8080"),
        ("https://1.2.3.4", "https://1.2.3.4:443"),
        ("https://example.com/ollama", "https://example.com:443/ollama"),
        ("https://example.com:99/ollama/", "https://example.com:99/ollama"),
        ("ollama.com", "https://ollama.com:443"),
    ],
)
def test_ollama_host_is_read_as_ollamas_clients_read_it(host: str, expected: str) -> None:
    assert address(None, {"OLLAMA_HOST": host}) == expected


def test_a_studys_url_goes_before_ollama_host() -> None:
    assert address("http://a:1/x", {"OLLAMA_HOST": "b:2"}) == "http://a:1/x"
    assert address(None, {}) == "http://127.0.0.1:11434"


@pytest.mark.parametrize(
    ("label", "millions"),
    [("268.10M", 268.1), ("7.6B", 7600), ("20.9B", 20900), ("137M", 137), ("1.2T", 1.2e6), ("500K", 0.5),
     ("", None), ("big", None), (None, None), ("0", None), (7, None)],
)  # fmt: skip
def test_a_parameter_label_is_read(label: object, millions: float | None) -> None:
    found = model_info({"details": {"parameter_size": label}}, None).params_millions_measured
    assert found == (None if millions is None else pytest.approx(millions))


def test_a_name_without_a_tag_means_latest() -> None:
    assert full_name("llama3") == "llama3:latest"
    assert full_name("host:5000/me/llama3") == "host:5000/me/llama3:latest"
    assert full_name("llama3:8b") == "llama3:8b"


def test_a_word_that_counts_otherwise_is_not_used_again() -> None:
    nonces = Nonces()
    for word, tokens in zip(WORDS[:5], (10, 10, 11, 10, 10), strict=True):
        assert nonces.take() == word
        nonces.counted(word, "text", tokens)
    nonces.renew()
    assert [nonces.take() for _ in range(4)] == [WORDS[0], WORDS[1], WORDS[3], WORDS[4]]


def test_the_words_are_many_single_and_different() -> None:
    assert len(set(WORDS)) == len(WORDS) > 250
    assert all(word.isalpha() and word[0].isupper() for word in WORDS)


def test_a_text_of_a_length_is_the_same_each_time() -> None:
    assert text_of(50, 1) == text_of(50, 1) != text_of(50, 2)
    assert len(text_of(50, 1).split()) == 50
