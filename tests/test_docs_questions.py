"""docs/questions.md: twenty questions of a planner, each answered by one command that prints what the page shows."""

import re
from pathlib import Path

import pytest
from questions import PAGE, answered, asked

TEXT = PAGE.read_text(encoding="utf-8")


def undated(text: str) -> str:
    """A price list is asked for today's prices."""
    return re.sub(r"on \d{4}-\d\d-\d\d", "on DAY", text)


def test_there_are_twenty_questions_each_with_a_command() -> None:
    questions = re.split(r"^## \d+\. ", TEXT, flags=re.MULTILINE)[1:]
    assert len(questions) == 20
    assert all(question.partition("\n")[0].endswith("?") and len(asked(question)) == 1 for question in questions)


@pytest.mark.slow
def test_each_command_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert undated(answered(TEXT, tmp_path)) == undated(TEXT)


def test_no_line_of_an_answer_is_over_80_characters() -> None:
    answers = re.findall(r"^```console\n\$.*?\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert max(len(line) for answer in answers for line in answer.splitlines()) <= 80
