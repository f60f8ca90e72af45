"""The tables of the docs that follow from declarations are as those say; ``python docs/generate.py`` writes them."""

import re
from pathlib import Path

import generate
import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_generated_parts_of_a_page_are_as_their_declarations_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate.generated(text) == text, "run: python docs/generate.py"


def test_every_part_that_can_be_generated_stands_in_the_docs() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert sorted(re.findall(r"<!-- generated: (.+?) -->", text)) == sorted(generate.GENERATED)
