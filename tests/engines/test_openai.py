"""The engine openai: streams with every oddity, servers that refuse keys, and keys that never show."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from recordings import NEW, OLD, recorded
from scripted_server import CHUNKED_HEAD, LAST_CHUNK, chunk, read_request, reply, scripted

from phaselaw.engines import Doubt, openai
from phaselaw.engines.http_client import Line
from phaselaw.engines.openai import read_stream
from phaselaw.engines.served import StreamedReply, client_timing
from phaselaw.errors import EngineError, NotReadyError
from phaselaw.records import Request
from phaselaw.study.model import ModelEntry, OpenaiBackend


def event(**said: Any) -> str:
    return "data: " + json.dumps(said)


def token(text: str, **more: Any) -> str:
    return event(choices=[{"index": 0, "text": text, "finish_reason": None}], **more)


def delta(**said: Any) -> str:
    return event(choices=[{"index": 0, "delta": said, "finish_reason": None}])


END = event(choices=[{"index": 0, "text": "", "finish_reason": "length"}])
STOP = event(choices=[{"index": 0, "text": "", "finish_reason": "stop"}])
USAGE = event(choices=[], usage={"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23})


def read(*lines: str | bytes) -> StreamedReply:
    """A stream whose lines came 10 ms apart, the first after 10."""
    texts = [line if isinstance(line, bytes) else line.encode() for line in lines]
    return read_stream([Line((index + 1) * 10_000_000, text) for index, text in enumerate(texts)], 0)


def test_tokens_are_timed_by_their_arrival_and_counted_by_the_usage() -> None:
    found = read(token("a"), "", token("b"), "", token("c"), "", END, "", USAGE, "", "data: [DONE]")
    assert found.served.arrivals_ms == (10, 30, 50)
    assert (found.done_reason, found.served.tokens_counted, found.served.wall_ms) == ("length", 3, 110)


def test_a_role_only_and_an_empty_first_chunk_are_no_tokens() -> None:
    found = read(delta(role="assistant"), "", delta(role="assistant", content=""), "", delta(content="x"), "", END)
    assert found.served.arrivals_ms == (50,)


def test_comments_ids_and_retries_are_passed_over() -> None:
    found = read(": keep-alive", "", "event: message", "id: 7", "retry: 10", token("a"), "", END, "data:[DONE]")
    assert found.served.arrivals_ms == (60,)


def test_no_blank_after_the_colon_and_none_between_events() -> None:
    assert read("data:" + token("a")[6:], token("b"), END).served.arrivals_ms == (10, 20)


def test_an_event_over_several_lines_comes_with_its_last() -> None:
    assert read('data: {"choices": [', 'data: {"text": "a"}]}', "", END).served.arrivals_ms == (20,)


def test_a_byte_order_mark_is_passed_over() -> None:
    assert read(b"\xef\xbb\xbf" + token("a").encode(), END).served.arrivals_ms == (10,)


def test_a_missing_done_is_no_fault_where_a_reason_came() -> None:
    assert read(token("a"), END).done_reason == "length"


def test_nothing_after_done_is_read() -> None:
    assert len(read(token("a"), "data: [DONE]", "data: {broken").served.arrivals_ms) == 1


def test_usage_of_zeros_on_each_chunk_is_not_the_usage() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    found = read(token("a", usage=zeros), USAGE, event(choices=[], usage=zeros), "data: [DONE]")
    assert found.served.tokens_counted == 3


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking", "reasoning_details"])
def test_hidden_reasoning_is_tokens_too(name: str) -> None:
    text: Any = [{"type": "reasoning.text", "text": "hm"}] if name == "reasoning_details" else "hm"
    found = read(delta(**{name: text}), delta(**{name: "so"}), delta(content="x"), END)
    assert (len(found.served.arrivals_ms), found.served.thinking_tokens) == (3, 2)


def test_a_content_of_parts_and_calls_of_tools_are_tokens() -> None:
    parts = delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}])
    tool = delta(content=None, tool_calls=[{"index": 0, "function": {"arguments": "{"}}])
    found = read(parts, tool, delta(function_call={"arguments": "{"}), delta(content="", tool_calls=[]), END)
    assert found.served.arrivals_ms == (10, 20, 30)


BROKEN = {
    "an event named error": (["event: token", token("a"), "", "event: error", event(message="died")], "server_error"),
    "an error mid-stream": ([token("a"), event(error={"message": "CUDA\nout of memory"})], "server_error"),
    "an error as text": ([event(error="no")], "server_error"),
    "an error as vLLM says it": ([event(object="error", message="bad")], "server_error"),
    "no JSON": (["data: {nope", ""], "bad_reply"),
    "no event": (["<html>"], "bad_reply"),
    "cut inside an event": ([token("a"), 'data: {"choi'], "connection_lost"),
}


@pytest.mark.parametrize(("lines", "kind"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_stream_is_an_engine_error_of_one_line(lines: list[str], kind: str) -> None:
    with pytest.raises(EngineError) as caught:
        read(*lines)
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)


def test_several_tokens_in_a_chunk_are_spread_by_the_usage_and_labelled() -> None:
    usage = event(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18})
    found = read(token("a b c"), token("d e f"), token("g h i"), END, usage)
    served = client_timing(found, "x", 16, head_cached=False).served
    assert served is not None
    assert served.decode_step_basis == "client_usage"
    assert (served.decode_step_ms, served.first_event_tokens) == pytest.approx((20 / 6, 3))


def test_without_usage_counts_are_estimated_and_labelled() -> None:
    for end, tokens in ((STOP, 3), (END, 16)):  # at the length asked for, whatever an event holds
        timing = client_timing(read(token("a"), token("b"), token("c"), end), "one two", 16, head_cached=False)
        assert timing.served is not None
        assert (timing.gen_tokens_raw, timing.prompt_tokens, timing.served.tokens_basis) == (tokens, 2, "estimated")


def test_the_model_that_answers_is_kept_by_the_name_that_the_server_gives() -> None:
    assert read(token("a", model="something-else"), END, USAGE).figures == {"model": "something-else"}
    assert read(token("a", model=7), END, USAGE).figures == {}


def test_ttft_stands_for_prefill() -> None:
    timing = client_timing(read("", token("a"), token("b"), END, USAGE), "x", 16, head_cached=True)
    assert timing.served is not None
    assert timing.prefill_ms == timing.served.ttft_ms == 20
    assert timing.served.prefill_basis == "ttft"


@pytest.mark.parametrize(("cached", "check"), [(19, "found"), (2, "fresh"), (0, "fresh"), (None, "undecidable")])
def test_the_servers_cached_count_decides(cached: int | None, check: str) -> None:
    usage: dict[str, Any] = {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22}
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    found = read(token("a"), token("b"), END, event(choices=[], usage=usage))
    served = client_timing(found, "one two three four", 16, head_cached=False).served
    assert served is not None and served.cache_check == check
    assert ("prefill" in served.faults) == (check == "found")


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("label", ["/v1/completions streamed with usage", "/v1/chat/completions streamed with usage"])
def test_what_real_ollama_servers_stream_on_v1_is_read(version: str, label: str) -> None:
    lines = [Line(int(ms * 1e6), text.encode()) for ms, text in recorded(version)[label].lines]
    found = read_stream(lines, 0)
    assert found.served.tokens_counted == len(found.served.arrivals_ms) == 16
    assert found.done_reason == "length"
    served = client_timing(found, "x", 16, head_cached=False).served
    assert served is not None and served.decode_step_basis == "client"


class Server:
    """A stand-in that speaks the protocol: it streams tokens, refuses the keys it is told to, and keeps what it got."""

    def __init__(self, *, refuses: tuple[str, ...] = (), names_it: bool = True, status: bytes = b"") -> None:
        self.refuses, self.names_it, self.status = refuses, names_it, status
        self.turns_away = 0
        self.list_status = ""
        self.requests: list[dict[str, Any]] = []
        self.heads: list[bytes] = []

    def __call__(self, connection: socket.socket) -> None:
        while request := read_request(connection):
            head, _, body = request.partition(b"\r\n\r\n")
            self.heads.append(head)
            if head.startswith(b"GET /v1/models") and self.list_status:
                connection.sendall(reply(b"no list here", status=self.list_status))
                continue
            if head.startswith(b"GET /v1/models"):
                entry = {"id": "m", "meta": {"n_params": 134_515_008, "n_embd": 576}}
                connection.sendall(reply(json.dumps({"object": "list", "data": [entry]}).encode()))
                continue
            asked = json.loads(body)
            self.requests.append(asked)
            bad = [key for key in self.refuses if key in asked]
            if self.turns_away:
                self.turns_away -= 1
                connection.sendall(reply(b"{}", status="429 Too Many", headers="Retry-After: 0\r\n"))
            elif self.status:
                connection.sendall(self.status)
            elif bad:
                said = f"Unrecognized request argument supplied: {bad[0]}" if self.names_it else "bad request"
                error = json.dumps({"error": {"message": said}}).encode()
                connection.sendall(reply(error, status="400 Bad Request"))
            else:
                connection.sendall(CHUNKED_HEAD)
                for text in ("a", "b", "c"):
                    connection.sendall(chunk(token(text).encode() + b"\r\n\r\n"))
                    time.sleep(0.002)
                tail = "\n\n".join([END, USAGE, "data: [DONE]", ""])
                connection.sendall(chunk(tail.encode()) + LAST_CHUNK)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def backend(url: str | None, **settings: Any) -> OpenaiBackend:
    return OpenaiBackend(name="served", kind="openai", url=url, **settings)


def ask(**changes: Any) -> Request:
    given: dict[str, Any] = {"prompt": "Say something nice", "prompt_tokens": None, "gen_tokens": 3, "batch_size": 1,
                             "study_seed": 42, "seed": 1, "round": 0} | changes  # fmt: skip
    return Request(**given)


def loaded(url: str, **settings: Any) -> Any:
    return openai.create(backend(url, **settings)).load(ModelEntry(name="m", kind="openai"))


@pytest.fixture
def server() -> Iterator[Callable[..., tuple[Server, str]]]:
    open_now = []

    def start(**settings: Any) -> tuple[Server, str]:
        standin = Server(**settings)
        context = scripted(standin)
        open_now.append(context)
        return standin, context.__enter__()

    yield start
    for context in open_now:
        context.__exit__(None, None, None)


def test_a_call_asks_for_the_whole_budget_usage_and_no_cache(server: Any) -> None:
    standin, url = server()
    timing = loaded(url).generate(ask())
    sent = standin.requests[-1]
    assert (sent["max_tokens"], sent["min_tokens"], sent["ignore_eos"]) == (3, 3, True)
    assert (sent["temperature"], sent["top_p"], sent["seed"]) == (0, 1, 42)
    assert sent["stream"] is True and sent["stream_options"] == {"include_usage": True}
    assert sent["cache_prompt"] is False and sent["cache_salt"]
    assert sent["prompt"].endswith(" Say something nice")
    assert timing.gen_tokens_raw == 3 and timing.served.connect_ms > 0


def test_chat_sends_messages_and_its_template_counts_as_head(server: Any) -> None:
    standin, url = server()
    timing = loaded(url, api="chat").generate(ask())
    assert standin.heads[-1].startswith(b"POST /v1/chat/completions ")
    assert standin.requests[-1]["messages"][0]["content"].endswith("Say something nice")
    assert timing.served.head_cached is True


def test_no_two_prompts_begin_alike(server: Any) -> None:
    standin, url = server()
    model = loaded(url)
    for _ in range(20):
        model.generate(ask())
    begins = [tuple(sent["prompt"].split()[:3]) for sent in standin.requests[1:]]
    assert len(set(begins)) == 20


@pytest.mark.parametrize("names_it", [True, False])
def test_keys_that_a_server_refuses_are_left_away(server: Any, names_it: bool) -> None:
    standin, url = server(refuses=("ignore_eos", "min_tokens", "cache_salt"), names_it=names_it)
    engine = openai.create(backend(url))
    engine.load(ModelEntry(name="m", kind="openai")).generate(ask())
    assert not {"ignore_eos", "min_tokens", "cache_salt"} & set(standin.requests[-1])
    assert set(engine.describe().settings["refused_keys"]) >= {"ignore_eos", "min_tokens", "cache_salt"}


def test_a_server_that_wants_the_newer_name_of_the_budget_gets_it(server: Any) -> None:
    standin, url = server(refuses=("max_tokens",))
    loaded(url).generate(ask())
    assert "max_tokens" not in standin.requests[-1]
    assert standin.requests[-1]["max_completion_tokens"] == 3


def test_a_key_comes_from_the_environment_and_never_shows(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    body = json.dumps({"error": {"message": "Incorrect API key provided: sk-very-secret"}}).encode()
    standin, url = server(status=reply(body, status="401 Unauthorized"))
    monkeypatch.setenv("PHASELAW_ALLOW_KEY", "127.0.0.1")
    engine = openai.create(backend(url, api_key_env="MY_KEY"))
    with pytest.raises(EngineError) as caught:
        engine.load(ModelEntry(name="m", kind="openai"))
    assert b"Authorization: Bearer sk-very-secret" in standin.heads[0]
    assert caught.value.kind == "http_401"
    assert "secret" not in str(caught.value) + json.dumps(dict(engine.describe().settings))


@pytest.mark.parametrize("before", range(60, 121, 6))
def test_no_part_of_a_key_shows_where_a_message_cuts_it_short(
    server: Any, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "plain-looking-9f3kd8s72jd92ks81")
    _, url = server(status=reply(b"x" * before + b" plain-looking-9f3kd8s72jd92ks81", status="400 Bad"))
    with pytest.raises(EngineError) as caught:
        loaded(url)
    assert "plain-lo" not in str(caught.value)


@pytest.mark.parametrize("address", ["HTTP://a:1/v1", "http://a:1/v1/", "http://a:1", "http://a:1/"])
def test_an_address_with_and_without_v1_is_the_same(address: str) -> None:
    assert openai.create(backend(address)).server.base_url.lower() == "http://a:1/v1"


@pytest.mark.parametrize("tail", ["?key=hidden-hidden", "/v1?x=hidden-hidden", "/v1#hidden-hidden"])
def test_an_address_of_the_environment_with_more_than_a_path_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, tail: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:9{tail}")
    with pytest.raises(EngineError, match="without user, password, query") as caught:
        openai.create(backend(None))
    assert "hidden-hidden" not in str(caught.value)


def test_without_a_key_none_is_sent(server: Any) -> None:
    standin, url = server()
    loaded(url)
    assert not any(b"authorization" in head.lower() for head in standin.heads)


def test_a_retried_call_is_no_measurement(server: Any) -> None:
    standin, url = server()
    model = loaded(url, retries=2)
    standin.turns_away = 1
    with pytest.raises(EngineError, match="answered at try 2, no measurement") as caught:
        model.generate(ask())
    assert caught.value.kind == "retried"
    assert model.generate(ask()).gen_tokens_raw == 3


def test_a_server_that_turns_away_while_it_loads_is_asked_again_before_its_model_is_given_up(server: Any) -> None:
    standin, url = server()
    standin.turns_away = 2
    assert loaded(url).generate(ask()).gen_tokens_raw == 3
    standin.status = reply(b"{}", status="503 Loading", headers="Retry-After: 9\r\n")
    with pytest.raises(EngineError, match="HTTP 503"):
        loaded(url, reconnect_s=1.0)


def test_a_call_turned_away_to_the_last_try_says_why(server: Any) -> None:
    standin, url = server()
    model = loaded(url)
    standin.status = reply(b"{}", status="429 Too Many", headers="Retry-After: 9\r\n")
    with pytest.raises(EngineError, match="Retry-After: 9") as caught:
        model.generate(ask())
    assert caught.value.kind == "http_429"


def test_a_server_that_does_not_stream_says_so(server: Any) -> None:
    _, url = server(status=reply(b'{"choices": []}', headers="Content-Type: application/json\r\n"))
    with pytest.raises(EngineError) as caught:
        loaded(url)
    assert caught.value.kind == "not_streamed"


def test_parameters_are_taken_where_the_server_counts_them(server: Any) -> None:
    _, url = server()
    assert loaded(url).info.params_millions_measured == 134.515008


def test_lacking_names_what_to_do(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = openai.lacking(backend(None), ())
    assert "OPENAI_BASE_URL" in line
    with pytest.raises(NotReadyError, match="OPENAI_BASE_URL"):
        openai.create(backend(None))
    _, url = server()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1/")
    assert openai.lacking(backend(None), ()) == []
    assert openai.lacking(backend(url), [ModelEntry(name="m", kind="openai")]) == []
    (line,) = openai.lacking(backend(url), [ModelEntry(name="other", kind="openai")])
    assert line.endswith("name one that it has: m")
    (line,) = openai.lacking(backend("http://127.0.0.1:9"), ())
    assert "refused" in line


@pytest.mark.parametrize("status", ["500 Offline", "404 Not Found", "403 Forbidden", "200 OK"])
def test_a_list_of_models_that_fails_is_a_warning_and_the_first_call_decides(server: Any, status: str) -> None:
    standin, url = server()
    standin.list_status = status
    (line,) = openai.lacking(backend(url), [ModelEntry(name="m", kind="openai")])
    assert isinstance(line, Doubt) and "calls decide" in line
    assert loaded(url).generate(ask()).gen_tokens_raw == 3
