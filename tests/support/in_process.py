"""A command line carried out in this process: what a process of its own would say and exit with, without its start."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from unittest import mock

from phaselaw.cli import main


def phaselaw(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``phaselaw WORDS...``: its exit code, and what it wrote to either stream."""
    said, noted = io.StringIO(), io.StringIO()
    argv = ["phaselaw", *map(str, words)]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(noted),
        contextlib.chdir(cwd or Path.cwd()),
    ):
        try:
            code = main()
        except SystemExit as left:  # argparse does not return
            code = int(left.code or 0)
    return subprocess.CompletedProcess(argv, code, said.getvalue(), noted.getvalue())


def measure(*words: str | Path) -> None:
    """``phaselaw run WORDS...`` up to its analysis and report, for who looks at neither."""
    with mock.patch("phaselaw.commands.run._reported", lambda *_, **__: 0):
        assert phaselaw("run", *words).returncode == 0
