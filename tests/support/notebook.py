"""Runs a notebook's code cells in order in one namespace, as a kernel does, without a kernel.

python tests/support/notebook.py docs/phaselaw.ipynb    run it and write its outputs into it
"""

import ast
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any


def outputs(notebook: dict[str, Any]) -> list[str]:
    """What each code cell prints, followed by the value of its last expression."""
    space: dict[str, Any] = {"__name__": "__main__"}
    return [_run("".join(cell["source"]), space) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def stored(notebook: dict[str, Any]) -> list[str]:
    """The outputs that the notebook holds, a text each code cell."""
    return [
        "".join(line for output in cell["outputs"] for line in output["text"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def _run(source: str, space: dict[str, Any]) -> str:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(tree, "<cell>", "exec"), space)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), space)
            if value is not None:
                print(value if isinstance(value, str) else repr(value))
    return said.getvalue()


def main(path: Path) -> None:
    """Run a notebook in an empty folder and write what came out into it."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        found = outputs(notebook)
    cells = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    for number, (cell, text) in enumerate(zip(cells, found, strict=True), start=1):
        lines = text.splitlines(keepends=True)
        cell["execution_count"] = number
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": lines}] if lines else []
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
