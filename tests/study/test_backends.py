"""The values of a backend: an address without secrets, a device, a name."""

import pytest
from pydantic import ValidationError

from phaselaw.study.model import HfBackend, OllamaBackend


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:11434",
        "https://host.example/v1",
        "HTTP://127.0.0.1",
        "http://[::1]:11434/",
        "http://ollama.internal:80/a@b",
    ],
)
def test_an_address_is_kept_as_it_is_written(url: str) -> None:
    assert OllamaBackend(name="x", kind="ollama", url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@localhost:11434",
        "http://hunter2@localhost",
        "http://:hunter2@localhost",
        "http://@localhost",
        "https://localhost/?key=hunter2",
        "https://localhost/#hunter2",
        "me:hunter2@localhost",
        "ftp://localhost",
        "file:///etc/passwd",
        "localhost:11434",
        "http://",
        "http:///path",
        "http://localhost:0",
        "http://localhost:65536",
        "http://localhost:port",
        "http://[::1",
        "http://local host",
        "http://localhost\n",
        "http://localhost/\x07",
        "",
    ],
)
def test_what_is_no_address_or_holds_a_secret_is_refused_and_not_repeated_in_the_reason(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        OllamaBackend(name="x", kind="ollama", url=url)
    [error] = caught.value.errors()
    assert error["loc"] == ("url",)
    assert error["msg"].startswith("Value error, should be http://HOST:PORT")
    assert "hunter2" not in error["msg"]


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda", "cuda:0", "cuda:12"])
def test_a_device_is_one_that_torch_knows(device: str) -> None:
    assert HfBackend(name="x", kind="hf", device=device).device == device


@pytest.mark.parametrize("device", ["", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "cuda0", "gpu", "cuda:0\n"])
def test_another_device_is_refused(device: str) -> None:
    with pytest.raises(ValidationError, match="should be cpu, cuda, cuda:N or mps"):
        HfBackend(name="x", kind="hf", device=device)


@pytest.mark.parametrize("name", ["a", "models/gpt2-5m", "qwen2.5:7b", "größe 2", "./a b", "-", "a,b"])
def test_a_name_may_hold_what_models_and_paths_hold(name: str) -> None:
    assert HfBackend(name=name, kind="hf").name == name


@pytest.mark.parametrize(
    "name", ["", " ", " a", "a ", "a|b", "a\n", "\x00", "a\x1b[0m", "a\x85b", "a\u2028b", "x" * 201]
)
def test_a_name_that_would_break_a_line_or_a_key_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        HfBackend(name=name, kind="hf")
