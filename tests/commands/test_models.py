"""``phaselaw models``: data on stdout, notes on stderr, an exit code that says whether models are whole."""

import io
import json
import re
from pathlib import Path

import pytest

from phaselaw.cli import build_parser
from phaselaw.commands import models
from phaselaw.errors import UsageError


def run(*argv: str) -> int:
    args = build_parser("models").parse_args(["models", *argv])
    return args.run(args) or 0


def test_build_prints_where_the_models_are_and_notes_on_stderr(tmp_path: Path, capsys) -> None:
    assert run("build", "tiny-gpt2", "--out", str(tmp_path)) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'tiny-gpt2'}\n"
    assert captured.err == "building tiny-gpt2 (2 MB)\n"


def test_build_as_json_is_one_document(tmp_path: Path, capsys) -> None:
    assert run("build", "models/tiny-gpt2", "--out", str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "models": [{"name": "tiny-gpt2", "path": str(tmp_path / "tiny-gpt2")}]
    }


def test_names_are_separated_by_commas_or_blanks(ladder_cache: Path, capsys) -> None:
    for names in (["tiny-gpt2,gpt2-5m"], ["tiny-gpt2", "gpt2-5m"]):
        assert run("build", *names) == 0
        assert capsys.readouterr().out.split() == [str(ladder_cache / "tiny-gpt2"), str(ladder_cache / "gpt2-5m")]


def test_list_shows_the_whole_ladder_and_what_is_built(tmp_path: Path, capsys) -> None:
    run("build", "tiny-gpt2", "--out", str(tmp_path))
    capsys.readouterr()
    assert run("list", "--out", str(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert re.fullmatch(r"models/tiny-gpt2 +102,714 +2 +2 +2 +8  built", lines[1])
    assert re.fullmatch(r"models/gpt2-100m +96,088,320 +8 +768 +2 +3072  not built", lines[7])


def test_list_as_json_holds_architecture_and_state(tmp_path: Path, capsys) -> None:
    assert run("list", "gpt2-45m", "--out", str(tmp_path), "--json") == 0
    [row] = json.loads(capsys.readouterr().out)["models"]
    assert (row["study_name"], row["params"], row["n_inner"]) == ("models/gpt2-45m", 45_171_200, None)
    assert (row["built"], row["faults"], row["path"]) == (False, ["not built"], str(tmp_path / "gpt2-45m"))


def test_verify_finds_a_wrong_bit_and_says_so_with_its_exit_code(tmp_path: Path, capsys) -> None:
    run("build", "tiny-gpt2", "--out", str(tmp_path))
    assert run("verify", "--out", str(tmp_path)) == 0
    assert "tiny-gpt2: whole\n" in capsys.readouterr().out
    weights = tmp_path / "tiny-gpt2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert run("verify", "--out", str(tmp_path), "--json") == 3
    [row] = json.loads(capsys.readouterr().out)["models"]
    assert row["faults"] == ["model.safetensors is damaged: its SHA-256 is not the shipped one"]


def test_verify_asked_for_a_model_that_is_not_built_fails_but_of_nothing_built_only_says_so(
    tmp_path: Path, capsys
) -> None:
    assert run("verify", "gpt2-5m", "--out", str(tmp_path)) == 3
    assert capsys.readouterr().out == "gpt2-5m: not built\n"
    assert run("verify", "--out", str(tmp_path)) == 0
    assert "phaselaw models build" in capsys.readouterr().err


def test_an_unknown_model_is_a_usage_error(tmp_path: Path) -> None:
    for action in ("build", "list", "verify"):
        with pytest.raises(UsageError, match="gpt9"):
            run(action, "gpt9", "--out", str(tmp_path))


def test_on_a_terminal_progress_is_redrawn_and_ends_its_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    show = models.progress_on(terminal)
    show("gpt2-5m", 1, 4)
    show("gpt2-5m", 4, 4)
    assert terminal.getvalue() == "\rbuilding gpt2-5m:  25 %\rbuilding gpt2-5m: 100 %\n"


@pytest.mark.usefixtures("ladder_cache")
def test_export_writes_gguf_files_that_start_as_such_and_a_modelfile_each(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs phaselaw[llamacpp]")
    assert run("export", "tiny-gpt2", "--format", "gguf", "--out", str(tmp_path)) == 0
    [weights] = tmp_path.rglob("*.gguf")
    assert weights.read_bytes()[:4] == b"GGUF"
    [modelfile] = tmp_path.rglob("*Modelfile*")
    assert weights.name in modelfile.read_text()
