"""What docs/economics.md and docs/traffic.md show is true: their arithmetic runs, their commands are commands."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from phaselaw.cli import build_parser
from phaselaw.plan.capacity import exact
from phaselaw.plan.economics import Question, answer
from phaselaw.plan.replicas import stated

DOCS = Path(__file__).parent.parent / "docs"
ECONOMICS, TRAFFIC = DOCS / "economics.md", DOCS / "traffic.md"


def test_the_examples_of_economics_come_out_as_printed() -> None:
    # A fence's end would be taken for output.
    text = re.sub(r"^```.*$", "", ECONOMICS.read_text(), flags=re.MULTILINE)
    examples = doctest.DocTestParser().get_doctest(text, {}, "economics.md", str(ECONOMICS), 0)
    found = doctest.DocTestRunner().run(examples)
    assert found.attempted > 20 and found.failed == 0


def commands() -> list[list[str]]:
    """The ``phaselaw`` lines of the shell examples, as words."""
    blocks = [
        block
        for path in (ECONOMICS, TRAFFIC)
        for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    ]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("phaselaw ")]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_in_the_docs_is_one(words: list[str]) -> None:
    assert build_parser().parse_args(words[1:]).run is not None


def test_every_table_of_the_json_is_in_the_docs() -> None:
    question = Question(success_rates={"a": exact(0.5), "b": exact(0.6)})
    tables = answer(question, [stated("a", 10.0, 1.0), stated("b", 20.0, 1.0)], {})
    section = ECONOMICS.read_text().partition("## The JSON")[2]
    assert [name for name in tables if f"`{name}`" not in section] == []
