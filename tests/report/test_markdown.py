"""Markdown: tables that render, and names that can't become markup."""

import re

import pytest
from documents import document

from phaselaw.report.document import Code, Table
from phaselaw.report.markdown import escaped, to_markdown
from phaselaw.tables import measured, words


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("<img onerror=x>", r"\<img onerror=x\>"),
        ("a|b", r"a\|b"),
        ("[a](b)", r"\[a](b)"),
        ("*a* `b` $c$ ~d~", r"\*a\* \`b\` \$c\$ \~d\~"),
        ("hf_cpu_fp32", "hf_cpu_fp32"),
        ("_a_", r"\_a\_"),
        ("http://x www.y", r"http:\//x www\.y"),
        ("two\nlines", "two lines"),
        ("&lt;", r"\&lt;"),
    ],
)
def test_markup_in_a_text_is_escaped_and_plain_names_are_left_alone(text: str, safe: str) -> None:
    assert escaped(text) == safe


@pytest.mark.parametrize(("text", "line"), [("# x", r"\# x"), ("- x", r"\- x"), ("1. x", r"1\. x"), ("= x", r"\= x")])
def test_a_line_does_not_begin_a_heading_or_a_list(text: str, line: str) -> None:
    assert f"\n{line}\n" in to_markdown(document(text))


def test_a_table_has_as_many_cells_in_each_line() -> None:
    table = Table(caption="C", columns=(words("n", "name"), measured("v", "ms")), rows=({"n": "a|b", "v": 1.5},))
    text = to_markdown(document(table))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [3, 3, 3]
    assert lines[1] == "| --- | ---: |"
    assert lines[0] == "| name | ms (measured) |"


def test_a_table_without_rows_says_so() -> None:
    assert "C (no rows)" in to_markdown(document(Table(caption="C", columns=(words("n", "n"),), rows=())))


def test_code_with_backticks_stays_inside_its_fence() -> None:
    text = to_markdown(document(Code("a ``` b"), ("x",)))
    assert "````\na ``` b\n````" in text
