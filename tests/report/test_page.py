"""The HTML page as text: small, self-contained, escaped. What a browser makes of it is in `test_browser.py`."""

import re
from pathlib import Path

from documents import document

from phaselaw.laws.analysis import DECLARED
from phaselaw.report.document import Table
from phaselaw.report.page import to_html
from phaselaw.rundir.columns import COLUMNS
from phaselaw.tables import derived, measured, words


def page_of(*blocks) -> str:
    return to_html(document(*blocks))


def test_the_page_is_small_and_refers_to_nothing_outside(hostile_run: Path) -> None:
    page = (hostile_run / "report.html").read_text()
    assert len(page) < 2_000_000
    assert "<img" not in page
    namespaces = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")
    for namespace in namespaces:
        page = page.replace(namespace, "")
    assert "http://" not in page and "https://" not in page and "default-src 'none'" in page


def test_no_two_things_in_the_page_have_one_id(hostile_run: Path) -> None:
    ids = re.findall(r'\sid="([^"]+)"', (hostile_run / "report.html").read_text())
    assert len(ids) == len(set(ids))


def test_every_number_says_where_it_is_from() -> None:
    columns = (words("n", "name"), measured("v", "ms"), derived("r", "ratio"))
    page = page_of(Table(caption="C", columns=columns, rows=({"n": "a", "v": 1.5, "r": 2.0},)))
    heads = re.findall(r"<th .*?</th>", page)
    assert [re.findall(r'<span class="source">(\w+)</span>', head) for head in heads] == [[], ["measured"], ["derived"]]


def test_a_row_that_is_suspect_is_marked() -> None:
    rows = ({"n": "sound", "suspect": ""}, {"n": "doubtful", "suspect": "far off the law"})
    page = page_of(Table(caption="C", columns=(words("n", "name"),), rows=rows))
    assert re.findall(r'<tr class="suspect">.*?</tr>', page) == [
        '<tr class="suspect"><td class="name">doubtful</td></tr>'
    ]


def test_characters_that_turn_text_or_obey_nobody_are_spelled_out() -> None:
    page = page_of("a\u202eb\x1b[2Jc\u200bd")
    assert "<p>a&lt;U+202E&gt;b&lt;U+001B&gt;[2Jc&lt;U+200B&gt;d</p>" in page


def test_a_value_that_is_missing_sorts_as_missing() -> None:
    rows = ({"v": None}, {"v": float("nan")}, {"v": 3.0})
    page = page_of(Table(caption="C", columns=(measured("v", "ms"),), rows=rows))
    assert re.findall(r'data-v="(.*?)"', page) == ["", "", "3"]


def test_no_sentence_names_a_column_of_a_file(hostile_run: Path) -> None:
    columns = {column.key for table in DECLARED.values() for column in table.columns} | set(COLUMNS)
    page = (hostile_run / "report.html").read_text()
    prose = " ".join(re.findall(r"<(?:p|li|caption|figcaption|dd|dt|h[123])\b[^>]*>(.*?)</", page))
    assert {word for word in re.findall(r"[a-z0-9]+(?:_[a-z0-9]+)+", prose) if word in columns} == set()
