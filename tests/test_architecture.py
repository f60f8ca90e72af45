"""The house keeps its shape: arrows go down only, and heavy libraries have one home each."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import phaselaw

SOURCE = Path(phaselaw.__file__).parent

FLOORS = [
    {"__main__"},
    {"cli"},
    {"commands"},
    {"measure", "report", "plan", "progress", "readiness", "host"},
    {"engines", "store", "laws"},
    {"derived"},
    {"study", "runs"},
    {"study_file"},
    {"study_axes"},
    {"study_backends", "study_faults", "study_settings", "study_schema"},
    {"study_text", "tr121_names"},
    {"ladder", "telemetry", "journal", "conditions"},
    {"metrics", "files", "redaction"},
    {"records", "machine", "errors", "__init__"},
]
"""From the top down: a room may import from the floors below its own, and from its own room."""

HOMES = {
    "torch": {f"engines/{name}.py" for name in ("hf", "hf_clock", "hf_limits", "hf_model")},
    "transformers": {"engines/hf.py", "engines/hf_model.py"},
}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def floor_of(room: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_from_lower_floors_or_itself(path: Path) -> None:
    room = room_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] != "phaselaw" or len(parts) < 2 or not any(parts[1] in rooms for rooms in FLOORS):
            continue
        other = parts[1]
        assert other == room or floor_of(other) > floor_of(room), f"{room} looks into {other}"


@pytest.mark.parametrize(("library", "homes"), HOMES.items())
def test_a_heavy_library_has_one_home(library: str, homes: set[str]) -> None:
    users = {
        path.relative_to(SOURCE).as_posix()
        for path in FILES
        if any(name.split(".")[0] == library for name in imports_of(path))
    }
    assert users == homes


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom phaselaw.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'scipy', 'matplotlib', 'polars', 'numpy', 'pydantic', 'yaml', 'rich'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"loaded: {done.stderr}"
    assert "phaselaw plan" in done.stdout
