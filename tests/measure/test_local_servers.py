"""Servers that run already: what each is told by, and what is said where none answers. Stand-ins speak for each."""

import json
import socket

import pytest
from scripted_server import Script, read_request, reply, scripted

from phaselaw.errors import NotReadyError
from phaselaw.measure import quick
from phaselaw.measure.quick import serving


def answering(**bodies: object) -> Script:
    """A server that answers these paths (``_`` for ``/``) with JSON, and all others with 404."""

    def script(connection: socket.socket) -> None:
        while request := read_request(connection):
            path = request.split(b" ")[1].decode().strip("/").replace("/", "_")
            body = bodies.get(path)
            connection.sendall(reply(json.dumps(body).encode()) if body is not None else reply(b"", status="404 No"))

    return script


def names(*ids: str, **known: str) -> dict[str, object]:
    return {"data": [{"id": name, **known} for name in ids]}


OLLAMA = {
    "api_version": {"version": "0.13.5"},
    "api_ps": {"models": [{"name": "warm:7b"}]},
    "api_tags": {"models": [{"name": "cold:1b"}, {"name": "warm:7b"}, {"name": "plain:latest"}]},
}
LLAMACPP = {"props": {"default_generation_settings": {"n_ctx": 2048}, "model_path": "/m/small.gguf"}}


def test_ollama_is_known_by_its_version_and_its_loaded_model_comes_first() -> None:
    with scripted(answering(**OLLAMA)) as url:
        server = serving(url=url)
        assert (server.kind, server.models) == ("ollama", ("warm:7b", "cold:1b", "plain:latest"))
        assert serving("plain", url).models[0] == "plain:latest"


def test_llama_cpp_is_known_by_its_properties_and_says_how_long_a_request_may_be() -> None:
    with scripted(answering(**LLAMACPP, v1_models=names("small"))) as url:
        server = serving(url=f"{url}/v1")
        assert (server.kind, server.models, server.context, server.url) == ("llamacpp", ("small",), 2048, url)


def test_vllm_and_sglang_are_servers_of_openais_protocol() -> None:
    with scripted(answering(v1_models=names("org/model", "org/other"))) as url:
        server = serving("org/other", url)
        assert (server.kind, server.models) == ("openai", ("org/other", "org/model"))


def test_of_lm_studios_models_the_loaded_one_comes_first() -> None:
    loaded = {"data": [{"id": "on-disk", "state": "not-loaded"}, {"id": "in-memory", "state": "loaded"}]}
    with scripted(answering(v1_models=names("on-disk", "in-memory"), api_v0_models=loaded)) as url:
        assert serving(url=url).models == ("in-memory", "on-disk")


def test_a_server_whose_list_fails_is_tried_all_the_same() -> None:
    with scripted(answering(v1_models=[])) as url:
        assert serving(url=url).models == (quick.UNNAMED,)
        assert serving("mine", url).models == ("mine",)


@pytest.mark.parametrize(
    ("status", "said"),
    [("401 No", "HTTP 401.*; set OPENAI_API_KEY"), ("400 No", "names no model: say which with --model")],
)
def test_a_server_that_names_no_model_is_not_blamed_for_that_where_it_wants_a_key(status: str, said: str) -> None:
    def script(connection: socket.socket) -> None:
        while read_request(connection):
            connection.sendall(reply(b"{}", status=status))

    with scripted(script) as url, pytest.raises(NotReadyError, match=said):
        quick.quick_study(serving(url=url))


def test_a_model_that_no_server_has_is_an_error_that_names_those_there_are() -> None:
    with scripted(answering(**OLLAMA)) as url, pytest.raises(NotReadyError, match=r"warm:7b, cold:1b"):
        serving("absent", url)


def test_where_nothing_answers_it_is_said_what_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setattr(quick, "PORTS", {port: "nothing"})
    with pytest.raises(NotReadyError, match="ollama serve"):
        serving()


def test_usual_ports_are_asked_and_one_with_names_goes_before_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(answering()) as web, scripted(answering(**LLAMACPP)) as llama:
        ports = {int(url.rsplit(":", 1)[1]): "x" for url in (web, llama)}
        monkeypatch.setattr(quick, "PORTS", ports)
        assert serving().url == llama
