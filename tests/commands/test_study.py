"""``phaselaw study``: what ships, what a file asks, whether it can run here, the schema, and their exit codes."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from phaselaw.cli import main
from phaselaw.study.file import load_study, shipped_studies

SOUND = """\
run_name: mine
scenarios: [micro, short]
backends: [{name: law, kind: simulated}]
models: [{name: one, kind: simulated}]
"""
LACKING = """\
run_name: elsewhere
scenarios: [micro]
backends: [hf_cpu_fp32]
models: [models/tiny-gpt2, {name: ./not here, kind: hf}]
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text(SOUND)
    return path


def test_list_shows_each_shipped_study_on_a_line_with_what_it_asks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(shipped_studies())
    [default] = [line for line in lines if line.startswith("gpt2-ladder-cpu ")]
    assert default.endswith("How does latency grow with model size on this CPU? (21 cells, 126 calls)")


def test_list_as_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed.keys() == shipped_studies().keys()
    assert (listed["tr121-scaling"]["cells"], listed["tr121-scaling"]["calls"]) == (57, 228)
    assert all(entry["asks"].endswith("?") for entry in listed.values())


def test_the_studies_of_tr121_ship() -> None:
    asked = {"gpt2-ladder-cpu", "tr121-scaling", "gemma-family", "decode-sweep", "boundary-batch8", "boundary-gen512"}
    assert asked <= shipped_studies().keys()


def test_show_prints_a_file_as_it_is_so_that_it_can_start_your_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "show", "decode-sweep"]) == 0
    assert capsys.readouterr().out == shipped_studies()["decode-sweep"].read_text(encoding="utf-8")


def test_show_as_json_is_the_study_resolved(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "show", str(study), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == load_study(str(study)).resolved()
    assert shown["scenarios"][0] == {"name": "micro", "prompt": "Hello", "prompts": None, "prompt_tokens": None}


def test_check_of_a_study_that_can_run_here_exits_0(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "check", str(study)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{study}: sound, and all is there: 2 cells, 1 replicate, 8 calls, 24 rows\n"
    assert captured.err == ""


def test_check_of_a_sound_study_that_this_machine_cannot_run_exits_1_with_a_list(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers", reason="only the hf engine looks for models")
    study.write_text(LACKING)
    assert main(["study", "check", str(study)]) == 1
    captured = capsys.readouterr()
    heading, line = captured.out.splitlines()
    assert line.startswith("model ./not here: no such folder")
    assert heading.startswith(f"{study} is sound; this machine lacks") and captured.err == ""
    assert main(["study", "check", str(study), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [(lack["backend"], lack["model"]) for lack in told["lacking"]] == [("hf_cpu_fp32", "./not here")]


@pytest.mark.parametrize(
    ("name", "model"),
    [("tr121-scaling", "qwen2.5:7b"), ("gemma-family", "gemma3:1b-it-qat"), ("cross-engine", "models/gpt2-25m:f32")],
)
def test_check_of_a_shipped_study_lists_the_server_and_the_models_it_is_to_have(
    name: str, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    assert main(["study", "check", name, "--connect"]) == 1
    [line] = [line for line in capsys.readouterr().out.splitlines() if "no Ollama server" in line]
    assert model in line.partition("it is to have ")[2]
    assert line.endswith("(optional)") == (name == "cross-engine")


def test_check_as_json_names_the_study_by_its_identity(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "check", str(study), "--json"]) == 0
    expected = {"study": "mine", "sha256": load_study(str(study)).sha256, "lacking": []}
    expected |= {"replicates": 1, "calls": 8, "rows": 24, "not_asked": []}
    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.parametrize("action", [["check"], ["check", "--json"], ["show"], ["show", "--json"]])
def test_a_broken_file_exits_2_with_nothing_on_stdout(
    action: list[str], study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.write_text(SOUND + "gen_token: 8\n")
    assert main(["study", *action, str(study)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"phaselaw: error: {study}:5: gen_token: unknown key (did you mean 'gen_tokens'?); remove or correct it\n"
    )


def test_schema_prints_a_versioned_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(schema)
    assert (schema["$id"], schema["x-version"]) == ("urn:phaselaw:study:1", 1)


@pytest.mark.parametrize("argv", [["study"], ["study", "lint"], ["study", "check"]])
def test_a_wrong_action_is_a_usage_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: phaselaw study")
