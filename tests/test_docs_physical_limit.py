"""docs/physical-limit.md: its commands are commands, its columns exist, its example comes out as it stands."""

import re
import shlex
from pathlib import Path

import pytest

from phaselaw.cli import build_parser, main
from phaselaw.laws.physical_limit import PHYSICAL_LIMIT, WALL_SHARE

TEXT = (Path(__file__).parent.parent / "docs" / "physical-limit.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("phaselaw ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_in_the_docs_is_one(line: str) -> None:
    assert build_parser().parse_args(shlex.split(line)[1:]).run is not None


def test_the_memory_example_comes_out_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = [line for line in COMMANDS if line.startswith("phaselaw memory")]
    assert main(shlex.split(line)[1:]) == 0
    [shown] = re.findall(r"^```text\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert capsys.readouterr().out == shown


def test_the_columns_that_are_explained_exist() -> None:
    table = TEXT.partition("| column | meaning |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines() if row.count("|") > 2)))
    assert len(named) >= 10
    assert named <= set(PHYSICAL_LIMIT.schema)


def test_the_rule_of_the_wall_is_the_codes() -> None:
    assert f"at least {WALL_SHARE * 100:.0f} %" in TEXT
