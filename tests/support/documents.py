"""Small documents, for the tests of what a report looks like."""

from phaselaw.report.document import Block, Chapter, Document, Front, Section, Trust


def document(*blocks: Block, title: str = "S", answer: str = "An answer.") -> Document:
    """A report of one section."""
    front = Front(answer=answer, notices=(), trust=Trust("sound", 14, ()), figures=(), pictures=(), facts=())
    section = Section(title=title, blocks=blocks)
    chapter = Chapter(title="Speed", said="Fast.", picture=None, sections=(section,))
    return Document(name="N", title="T", front=front, chapters=(chapter,))
