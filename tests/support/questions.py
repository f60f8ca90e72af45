"""The examples of docs/questions.md; ``python tests/support/questions.py`` writes what they print into the page."""

from __future__ import annotations

import contextlib
import doctest
import functools
import io
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from phaselaw import api
from phaselaw.cli import main
from phaselaw.measure import replicates

PAGE = Path(__file__).parents[2] / "docs" / "questions.md"
CASES = PAGE.parent / "questions"
_BLOCK = re.compile(r"^```(sh|console|pycon)\n(.*?)^```\n", flags=re.MULTILINE | re.DOTALL)


def asked(text: str) -> list[str]:
    """The commands of the page, in order."""
    lines = (line for _, body in _BLOCK.findall(text) for line in body.splitlines())
    return [line.removeprefix("$ ") for line in lines if line.startswith(("phaselaw ", "$ phaselaw "))]


def answered(text: str, folder: Path) -> str:
    """The page with what its commands print now; run in order in a ``folder``, which is filled."""
    shutil.copytree(CASES, folder, dirs_exist_ok=True)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_COLOR", "1")
        # The page and its pictures are no part of it, and a run is read once.
        patch.setattr("phaselaw.api.draw", lambda _: "")
        patch.setattr("phaselaw.report.page.to_html", lambda _: "")
        patch.setattr(replicates, "in_a_fresh_process", replicates._in_this_process)
        patch.setattr("phaselaw.api.load", functools.cache(api.load))
        return _BLOCK.sub(_answer, text)


def _answer(found: re.Match[str]) -> str:
    kind, body = found.groups()
    if kind == "sh":
        for line in body.splitlines():
            _said(line.partition("#")[0])
        return found[0]
    if kind == "console":
        line = body.splitlines()[0]
        return f"```console\n{line}\n{_said(line.removeprefix('$ '))}```\n"
    got: list[str] = []
    examples = doctest.DocTestParser().get_doctest(body, {}, "questions.md", str(PAGE), 0)
    doctest.DocTestRunner(verbose=False).run(examples, out=got.append)
    return f"```{kind}\n{body if not got else ''.join(got)}```\n"


def _said(line: str) -> str:
    """What a command prints on stdout, or nothing where that goes into a file; it must succeed."""
    command, _, file = line.partition(" > ")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(shlex.split(command)[1:])
    assert code == 0, f"{line}: {err.getvalue()}"
    if file:
        Path(file.strip()).write_text(out.getvalue())
        return ""
    return re.sub(r" +$", "", out.getvalue(), flags=re.MULTILINE).rstrip("\n") + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        now = answered(PAGE.read_text(encoding="utf-8"), Path(folder))
    if now != PAGE.read_text(encoding="utf-8"):
        PAGE.write_text(now, encoding="utf-8")
        sys.stdout.write("questions.md\n")
