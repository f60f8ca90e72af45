"""``--set key=value`` puts one value into a study, and says so when it can't."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaselaw.cli import main
from phaselaw.errors import UsageError
from phaselaw.study.file import BARE_NAMES, load_study
from phaselaw.study.model import Study

TEXT = """\
run_name: settings
scenarios: [micro, short]
backends: [hf_cpu_fp32, ollama, {name: "2", kind: simulated}]
models: [models/gpt2-5m, qwen2.5:7b, {name: qwen2.5, kind: ollama}, {name: fake, kind: simulated}]
"""


def load(tmp_path: Path, *settings_given: str, text: str = TEXT) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load_study(str(path), settings=settings_given)


def refused(tmp_path: Path, *settings_given: str, text: str = TEXT) -> str:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, *settings_given, text=text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("gen_tokens=8", ("gen_tokens",), 8),
        (" gen_tokens = 8 ", ("gen_tokens",), 8),
        ("run_name=a=b", ("run_name",), "a=b"),
        ("order=cells", ("order",), "cells"),
        ("axes.gen_tokens=[8, 16]", ("axes", "gen_tokens"), [8, 16]),
        ("axes={gen_tokens: [8]}", ("axes", "gen_tokens"), [8]),
        ("gen_tokens_list=[4]", ("axes", "gen_tokens"), [4]),
        ("backends.hf_cpu_fp32.threads=2", ("backends", 0, "threads"), 2),
        ("backends.ollama.options.temperature=0.5", ("backends", 1, "options", "temperature"), 0.5),
        ("backends.2.overhead_ms=1e3", ("backends", 2, "overhead_ms"), 1000.0),
        ("models.0.params_millions=5", ("models", 0, "params_millions"), 5.0),
        ("models.qwen2.5:7b.params_millions=7.5", ("models", 1, "params_millions"), 7.5),
        ("models.qwen2.5.params_millions=7", ("models", 2, "params_millions"), 7.0),
        ("scenarios=[medium]", ("scenarios", 0, "name"), "medium"),
        ("scenarios.micro.prompt='Hi: there'", ("scenarios", 0, "prompt"), "Hi: there"),
        ("backends.1.keep_alive=5m", ("backends", 1, "keep_alive"), "5m"),
    ],
)
def test_a_setting_replaces_one_value_by_name_or_by_index(
    setting: str, path: tuple[str | int, ...], value: object, tmp_path: Path
) -> None:
    found: Any = load(tmp_path, setting).resolved()
    for part in path:
        found = found[part]
    assert found == value


def test_settings_leave_the_rest_alone(tmp_path: Path) -> None:
    with_setting, without = load(tmp_path, "seed=7").resolved(), load(tmp_path).resolved()
    assert {key for key in without if without[key] != with_setting[key]} == {"seed"}


def test_of_two_settings_of_one_key_the_last_holds(tmp_path: Path) -> None:
    assert load(tmp_path, "seed=7", "seed=8").seed == 8
    assert load(tmp_path, "axes.gen_tokens=[8]", "gen_tokens_list=[16]").budgets() == (16,)


def test_a_setting_does_not_leak_into_what_bare_names_mean(tmp_path: Path) -> None:
    load(tmp_path, "backends.ollama.options.temperature=1", "backends.ollama.options.mirostat=2")
    assert BARE_NAMES["backends"]["ollama"]["options"] == {"temperature": 0, "top_p": 1}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("gen_tokens=eight", "study.yaml: --set gen_tokens: gen_tokens: should be a whole number, not 'eight'"),
        ("gen_tokens=", "gen_tokens: should be a whole number, not None"),
        ("gen_tokens=0", "gen_tokens: should be greater than or equal to 1, not 0"),
        ("gen_token=8", "study.yaml: --set gen_token: gen_token: unknown key (did you mean 'gen_tokens'?)"),
        ("axes.gen_token=[8]", "axes.gen_token: unknown key (did you mean 'gen_tokens'?)"),
        ("axes.gen_tokens=8", "study.yaml: --set axes.gen_tokens: axes.gen_tokens: should be a list, not 8"),
        ("axes.gen_tokens=[8, 8]", "--set axes.gen_tokens: axes.gen_tokens[1]: 8 is there twice"),
        ("run_name.x=8", "--set run_name.x: run_name is a single value and holds no keys"),
        ("models.qwen.params_millions=3", "--set models.qwen.params_millions: 'qwen.params_millions' names none of: "),
        ("models.9.params_millions=3", "names none of: models/gpt2-5m, "),
        ("models=models/tiny-gpt2", "models: should be a list, not 'models/tiny-gpt2'"),
        ("models=[models/tiny-gpt]", "no known entry 'models/tiny-gpt' (did you mean 'models/tiny-gpt2'?)"),
        ("gen_tokens", "--set 'gen_tokens': give it as key=value, such as gen_tokens=8"),
        ("=8", "--set '': give it as key=value"),
        ("gen_tokens=[8", "--set gen_tokens: not valid YAML"),
        ("gen_tokens=!!python/name:os.system x", "--set gen_tokens: the tag "),
        ("gen_tokens=8\n---\n9", "--set gen_tokens: a second YAML document"),
        ("gen_tokens=" + "[" * 60_000, "--set gen_tokens: nested deeper than 30 levels"),
        ("gen_tokens=" + "9" * 60_000, "--set gen_tokens: "),
        ("gen_tokens=.nan", "--set gen_tokens: '.nan' is not a number that can be measured with"),
        ("a." * 5_000 + "b=1", "a key of 5001 parts"),
        ("\x1b[31m=1", "'\\x1b[31m': unknown key"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(setting: str, says: str, tmp_path: Path) -> None:
    message = refused(tmp_path, setting)
    assert says in message
    assert len(message) < 600


def test_a_budget_that_the_axis_would_override_is_refused_not_ignored(tmp_path: Path) -> None:
    swept = TEXT + "axes: {gen_tokens: [8, 16]}\n"
    assert "no effect, since this study has axes.gen_tokens" in refused(tmp_path, "gen_tokens=4", text=swept)
    assert load(tmp_path, "axes.gen_tokens=[4]", text=swept).budgets() == (4,)


def test_two_items_of_one_name_need_the_index(tmp_path: Path) -> None:
    twins = TEXT.replace("name: fake", "name: qwen2.5")
    assert "several items are named 'qwen2.5'; give the index" in refused(
        tmp_path, "models.qwen2.5.n_layer=3", text=twins
    )
    assert load(tmp_path, "models.3.n_layer=3", text=twins).models[3].n_layer == 3


def test_a_secret_in_a_setting_is_refused_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(TEXT)
    for value in ("http://me:hunter2@localhost:11434", "me:hunter2@localhost", "http://h/?key=hunter2", "[hunter2"):
        assert main(["run", "study.yaml", "--dry-run", "--set", f"backends.ollama.url={value}"]) == 2
        message = capsys.readouterr().err
        assert "backends" in message and message.count("\n") == 1
        assert "hunter2" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(["gen_tokens", "axes", "models", "backends", "ollama", "options", "0", "", "x"]), max_size=4
    ).map(".".join)
    | st.text(max_size=10),
    st.text(max_size=12),
)
def test_no_setting_crashes(tmp_path_factory: pytest.TempPathFactory, key: str, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any-setting.yaml"
    path.write_text(TEXT)
    try:
        load_study(str(path), settings=[f"{key}={value}"])
    except UsageError as error:
        assert "\n" not in str(error)
