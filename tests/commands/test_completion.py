"""``phaselaw completion``: what a shell needs to complete commands and options."""

import subprocess

import pytest

from phaselaw.cli import COMMANDS, main


def test_bash_completes_commands_and_options(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "phaselaw").write_text(capsys.readouterr().out)
    asks = 'source ./phaselaw; COMP_WORDS=({}); COMP_CWORD={}; _shtab_phaselaw; echo "${{COMPREPLY[@]}}"'
    for words, at, expected in (("phaselaw pl", 1, "plan"), ("phaselaw plan --tokens-per-m", 2, "--tokens-per-month")):
        found = subprocess.run(
            ["bash", "-c", asks.format(words, at)], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert found.stdout.split() == [expected]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_another_shell_knows_every_command_and_the_options_of_plan(shell: str, capsys) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS) and "requests-per-month" in script


def test_a_shell_that_is_not_known_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["completion", "csh"])
    assert stopped.value.code == 2
