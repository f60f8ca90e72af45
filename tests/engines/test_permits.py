"""A study from elsewhere gets no key and starts no program unless its user says so: real requests, a real script."""

from pathlib import Path

import pytest
from scripted_server import answering, reply, scripted

from phaselaw.cli import main
from phaselaw.engines import permits
from phaselaw.engines.permits import key_for, refusal_to_start
from phaselaw.errors import NotReadyError, StudyError
from phaselaw.study.file import load_study

KEY = "sk-kx0123456789"
STUDY = """\
run_name: theirs
scenarios: [{{name: a, prompt: Hi}}]
models: [{{name: m, kind: {kind}}}]
backends: [{backend}]
"""


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (permits.KEY_HOSTS, permits.TYPED_HOSTS, permits.PROGRAMS, permits.DEFAULT_ADDRESS):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)


def written(folder: Path, backend: str, kind: str = "openai") -> str:
    path = folder / "theirs.yaml"
    path.write_text(STUDY.format(kind=kind, backend=backend))
    return str(path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:1"])
def test_the_default_key_goes_to_this_machine(url: str) -> None:
    assert key_for(url, "OPENAI_API_KEY") == KEY


def test_the_default_key_goes_where_its_own_variable_says_and_to_what_was_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        NotReadyError, match=r"the key in OPENAI_API_KEY to there.example; to allow .*--allow-key there"
    ):
        key_for("https://there.example/v1", "OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://There.example/v1")
    assert key_for("https://there.example/v1", "OPENAI_API_KEY") == KEY
    permits.allow(key_hosts=[], settings=["backends.s.url=https://typed.example"], programs=False)
    assert key_for("https://typed.example", "OPENAI_API_KEY") == KEY


def test_another_key_is_asked_for_on_every_host_and_none_goes_over_plain_http_off_the_machine() -> None:
    for url in ("https://there.example", "http://127.0.0.1:1"):
        with pytest.raises(NotReadyError, match="the key in AWS_SECRET_ACCESS_KEY"):
            key_for(url, "AWS_SECRET_ACCESS_KEY")
    permits.allow(key_hosts=["there.example"], settings=[], programs=False)
    assert key_for("https://there.example", "AWS_SECRET_ACCESS_KEY") == KEY
    assert key_for("http://there.example", "AWS_SECRET_ACCESS_KEY") is None
    assert key_for("http://there.example", "OPENAI_API_KEY") is None


def test_check_connects_nowhere_unless_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[object] = []

    def script(connection: object) -> None:
        asked.append(connection)
        answering(reply(b'{"data": [{"id": "m"}]}'))(connection)

    with scripted(script) as url:
        study = written(tmp_path, f"{{name: s, kind: openai, url: '{url}'}}")
        assert main(["study", "check", study]) == 0
        assert "not asked, since nothing was connected to: s" in capsys.readouterr().out
        assert asked == []
        assert main(["study", "check", study, "--connect"]) == 0
        assert asked


def test_a_study_that_would_send_a_key_elsewhere_is_refused_with_the_keys_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = written(tmp_path, "{name: s, kind: openai, url: 'https://x.example', api_key_env: AWS_SECRET_ACCESS_KEY}")
    assert main(["study", "check", study]) == 1
    told = capsys.readouterr().out
    assert "the key in AWS_SECRET_ACCESS_KEY to x.example" in told and KEY not in told
    assert main(["run", study, "--out", str(tmp_path / "run")]) == 1
    assert not (tmp_path / "run").exists()


def test_a_study_starts_no_program_outside_of_path_unless_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "x.sh"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\nexit 1\n")
    script.chmod(0o755)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    study = written(tmp_path, f"{{name: s, kind: llamacpp, server: {script}}}", "llamacpp")
    study = written(tmp_path, f"{{name: s, kind: llamacpp, server: {script}}}", "llamacpp").replace("m,", "m,")
    assert main(["run", study, "--out", str(tmp_path / "run")]) == 1
    assert f"would start {script}, a program outside of PATH" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    permits.allow(key_hosts=[], settings=[], programs=True)
    assert refusal_to_start(str(script)) is None
    assert refusal_to_start("llama-server") is None


@pytest.mark.parametrize("key", ["api_key", "Authorization", "password", "client_secret", "x-api-key", "auth_token"])
def test_a_key_of_a_request_that_is_called_as_secrets_are_is_refused(tmp_path: Path, key: str) -> None:
    study = written(tmp_path, f"{{name: s, kind: openai, url: 'http://127.0.0.1:1', extra: {{{key}: kx-1}}}}")
    with pytest.raises(StudyError, match=rf"extra: {key} would be kept with the run") as refused:
        load_study(study)
    assert "kx-1" not in str(refused.value)


def test_other_keys_of_a_request_are_kept(tmp_path: Path) -> None:
    extra = "{best_of: 1, max_prompt_tokens: 3, stop_token_ids: ['1']}"
    study = written(tmp_path, f"{{name: s, kind: openai, url: 'http://127.0.0.1:1', extra: {extra}}}")
    assert load_study(study).backends[0].extra["max_prompt_tokens"] == 3


ADDRESSES = ("http://me:pa55word@127.0.0.1:9", "me:pa55word@127.0.0.1:9", "http://[me:pa55word@x]")


@pytest.mark.parametrize("kind", ["ollama", "openai"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_a_password_in_an_address_is_shown_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, address: str, kind: str
) -> None:
    variable = {"ollama": "OLLAMA_HOST", "openai": "OPENAI_BASE_URL"}[kind]
    monkeypatch.setenv(variable, address)
    assert main(["study", "check", written(tmp_path, f"{{name: s, kind: {kind}}}", kind), "--connect"]) == 1
    told = capsys.readouterr()
    assert "pa55word" not in told.out + told.err
    if "://" in address:
        assert main(["traffic", address]) == 1
        assert "pa55word" not in capsys.readouterr().err
