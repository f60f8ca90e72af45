"""``phaselaw quick``: a real llama.cpp server in five lines; what it asks; and where nothing answers."""

import socket
from pathlib import Path

import pytest
from llama_server import llama_server

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
            if words[0] == "quick":
                assert "2 or more on short" in lines[2] and "10000 ms" in lines[2]


def test_the_slower_the_server_the_less_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server = quick.LocalServer(kind="openai", url="http://127.0.0.1:1/v1", models=("m",))
    calls = {}
    for step_ms in (1.0, 30.0, 1000.0):
        monkeypatch.setattr(quick, "_pace", lambda _, ms=step_ms: (5 * ms, ms, "chat"))
        study, seconds = quick.quick_study(server)
        calls[step_ms] = study.calls_planned() * study.gen_tokens
        assert study.backends[0].concurrency[-1] == 8 and study.replicates == 3
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
    assert "no such study file" in capsys.readouterr().err
