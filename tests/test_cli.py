"""The command line's frame: errors are one line, exit codes are a contract."""

import argparse
import re
import shlex

import pytest

from phaselaw import __version__, cli
from phaselaw.cli import COMMANDS
from phaselaw.errors import PhaselawError, RunError, StudyError


def parser_that_raises(error: BaseException) -> argparse.ArgumentParser:
    def fail(_: argparse.Namespace) -> int:
        raise error

    parser = argparse.ArgumentParser()
    parser.add_argument("--debug", action="store_true")
    parser.set_defaults(run=fail)
    return parser


@pytest.mark.parametrize(
    ("error", "code"), [(RunError("gone"), 1), (StudyError("a.yaml:3: bad"), 2), (KeyboardInterrupt(), 130)]
)
def test_an_error_is_one_line_and_its_own_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "build_parser", lambda _only: parser_that_raises(error))
    assert cli.main([]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("phaselaw: ")


def test_an_error_of_several_lines_is_told_in_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "build_parser", lambda _only: parser_that_raises(RunError("first\n  second")))
    cli.main([])
    assert capsys.readouterr().err == "phaselaw: error: first second\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "build_parser", lambda _only: parser_that_raises(RunError("gone")))
    with pytest.raises(PhaselawError, match="gone"):
        cli.main(["--debug"])


def test_the_version_is_told_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"phaselaw {__version__}\n"


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["mesure"])
    assert ended.value.code == 2
    assert "mesure" in capsys.readouterr().err


def test_each_command_is_in_the_help_by_its_line_and_has_its_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    overview = " ".join(capsys.readouterr().out.split())
    assert len(COMMANDS) >= 7
    for name, line in COMMANDS.items():
        assert f" {name} {line}" in overview
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        assert f"phaselaw {name}" in capsys.readouterr().out


def test_an_option_before_the_command_does_not_hide_it() -> None:
    assert cli.main(["--debug", "study", "schema"]) == 0


def every_option() -> list[tuple[str, argparse.Action]]:
    found: list[tuple[str, argparse.Action]] = []

    def walk(name: str, parser: argparse.ArgumentParser) -> None:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for sub_name, sub in action.choices.items():
                    walk(f"{name} {sub_name}", sub)
            else:
                found.append((name, action))

    walk("phaselaw", cli.build_parser())
    return found


def test_every_option_has_help() -> None:
    assert len(every_option()) > 20
    assert [f"{name} {action.dest}" for name, action in every_option() if not action.help] == []


def test_help_fits_into_80_columns_and_its_examples_can_be_typed(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    whole = cli.build_parser()
    examples = []
    for name in COMMANDS:
        command = next(action.choices[name] for action in whole._actions if isinstance(action.choices, dict))
        told = command.format_help()
        assert [line for line in told.splitlines() if len(line) > 80] == [], name
        examples += re.findall(r"^  phaselaw (.+?)(?: {2,}.*)?$", told, re.MULTILINE)
    assert len(examples) > 40
    for words in (shlex.split(typed.partition(" > ")[0]) for typed in examples):
        assert whole.parse_args(words).run


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["pln"], "plan"),
        (["plan", "r", "--tokens-per-mnth", "1B"], "--tokens-per-month"),
        (["analyse", "r"], "analyze"),
    ],
)
def test_a_misspelt_command_or_option_gets_a_suggestion(words: list[str], meant: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2 and f"did you mean {meant}?" in capsys.readouterr().err
