"""``phaselaw quick``: a real llama.cpp server in five lines; what it asks; and where nothing answers."""

import json
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from llama_server import llama_server
from ollama_standin import OllamaStandIn
from recordings import NEW, OLD
from scripted_server import CHUNKED_HEAD, LAST_CHUNK, Script, chunk, read_request, reply, scripted

from phaselaw.cli import main
from phaselaw.commands.show import contents
from phaselaw.measure import quick


def test_a_real_server_is_told_in_five_lines_and_its_run_is_like_any_other(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(quick, "SIZES", ((2, (4, 16), (1, 2)),))
    monkeypatch.setattr(quick, "WANTED_S", 1.0)
    monkeypatch.setattr(quick, "REPLICATES", 1)
    with llama_server() as url:
        monkeypatch.setattr(quick, "PORTS", {int(url.rsplit(":", 1)[1]): "llama.cpp"})
        [model] = quick.serving().models
        # The one measures by an address; the other is the name of no study, but of a model that a server here has.
        for words in (["quick", url, "--slo-ttft", "10s", "--slo-tpot", "10s"], ["run", model]):
            out = tmp_path / words[0]
            assert main([*words, "--out", str(out)]) == 0
            lines = capsys.readouterr().out.splitlines()
            starts = [line[:12].strip() for line in lines]
            assert starts == ["first token", "tokens/s", "users", "limited by", "trust", "report", "plan"]
            assert "short (" in lines[0] and "by 2 together" in lines[1]
            assert contents(out)["complete"] and contents(out)["calls_failed"] == 0
            assert (out / "report.html").is_file()
            assert "\nEnd to end, " in (out / "report.md").read_text(), "of a model whose size nobody stated, too"
            if words[0] == "quick":
                assert "2 or more on short" in lines[2] and "10000 ms" in lines[2]


def speaking_openai(*, listed: bool = True, any_name: bool = True) -> Script:
    """A server in the manner of vLLM; or one whose list of models fails, such as transformers', and knows one name."""

    def script(connection: socket.socket) -> None:
        while request := read_request(connection):
            head, _, body = request.partition(b"\r\n\r\n")
            asked = json.loads(body) if body else {}
            if listed and b" /v1/models" in head:
                connection.sendall(reply(json.dumps({"data": [{"id": "org/model"}]}).encode()))
            elif b" /v1/completions" not in head or not (any_name or asked["model"] == "org/model"):
                connection.sendall(reply(b"", status="500 Internal Server Error"))
            else:
                n = asked["max_tokens"]
                events = [{"choices": [{"text": " w", "finish_reason": "length" * (at == n - 1)}]} for at in range(n)]
                usage = {"prompt_tokens": len(asked["prompt"].split()), "completion_tokens": n, "total_tokens": n}
                lines = [*map(json.dumps, [*events, {"choices": [], "usage": usage}]), "[DONE]"]
                connection.sendall(CHUNKED_HEAD)
                for line in lines:
                    time.sleep(0.002)
                    connection.sendall(chunk(f"data: {line}\n\n".encode()))
                connection.sendall(LAST_CHUNK)

    return script


STANDINS = {
    "Ollama 0.13": (lambda: OllamaStandIn(OLD), ()),
    "Ollama 0.33": (lambda: OllamaStandIn(NEW), ()),
    "vLLM": (speaking_openai, ()),
    "no list": (lambda: speaking_openai(listed=False), ()),
    "no list, one name": (lambda: speaking_openai(listed=False, any_name=False), ("--model", "org/model")),
}


@pytest.mark.parametrize("kind", STANDINS)
def test_each_kind_of_server_is_measured(kind: str, tmp_path: Path, monkeypatch, capsys) -> None:
    for name, of in {"SIZES": ((4, (8, 24), (1, 2)),), "WANTED_S": 0.2, "REPLICATES": 1}.items():
        monkeypatch.setattr(quick, name, of)
    for drawn in ("api.draw", "report.page.to_html"):  # of no matter here
        monkeypatch.setattr(f"phaselaw.{drawn}", lambda _: "")
    standin, words = STANDINS[kind]
    with ExitStack() as opened:
        url = opened.enter_context(scripted(standin()))
        if words:
            assert main(["quick", url, "--out", str(tmp_path / "none")]) == 1
            assert "names no model: say which with --model NAME" in capsys.readouterr().err
        assert main(["quick", url, *words, "--out", str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    starts = [line[:12].strip() for line in lines]
    assert starts == ["first token", "tokens/s", "users", "limited by", "trust", "report", "plan"]
    assert lines[3].count("generating") <= 1  # for two prompts
    assert "OLLAMA_NUM_PARALLEL" not in lines[3] or "Ollama" in kind


def test_the_slower_the_server_the_less_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server = quick.LocalServer(kind="openai", url="http://127.0.0.1:1/v1", models=("m",))
    calls = {}
    for step_ms in (1.0, 30.0, 1000.0):
        monkeypatch.setattr(quick, "_pace", lambda _, ms=step_ms: (5 * ms, ms, "chat"))
        study, seconds = quick.quick_study(server)
        calls[step_ms] = study.calls_planned() * study.gen_tokens
        assert study.backends[0].concurrency[-1] == (2 if step_ms == 1000.0 else 8) and study.replicates == 3
        assert seconds <= 1.1 * quick.WANTED_S or step_ms == 1000.0
    assert calls[1.0] > calls[30.0] >= calls[1000.0]


def test_prompts_fit_the_context_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "_pace", lambda _: (1.0, 1.0, "completions"))
    server = quick.LocalServer(kind="llamacpp", url="http://127.0.0.1:1", models=("m",), context=160)
    study, _ = quick.quick_study(server)
    assert max(scenario.prompt_tokens for scenario in study.scenarios) + study.gen_tokens <= 160


def test_nothing_to_measure_is_exit_code_1_and_what_to_start(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setattr(quick, "PORTS", {port: "nothing"})
    assert main(["quick"]) == 1
    assert "llama-server -m MODEL.gguf" in capsys.readouterr().err
    assert main(["run", "no-such-model"]) == 2
    told = capsys.readouterr().err
    assert "no such study file" in told and "as a model: no model server answers" in told and len(told) < 250
    assert main(["run", "qwen2.5:7b"]) == 1  # a model's tag: as quick has it
    assert "no such study" not in capsys.readouterr().err
    for study in ("no-such.yaml", "gpt2-lader-cpu"):  # a study was meant: no server is looked for
        assert main(["run", study]) == 2
        assert "no model server" not in capsys.readouterr().err
    assert main(["quick", f"127.0.0.1:{port}"]) == 1  # an address as people write it
    assert f"no model server answers at http://127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["ftp://127.0.0.1:1", "http://me:pa55word@127.0.0.1:1"])
def test_an_address_that_is_never_asked_is_said_to_be_none(address: str, capsys) -> None:
    assert main(["quick", address]) == 1
    told = capsys.readouterr().err
    assert "no model server" not in told and "pa55word" not in told and "address" in told
