"""The house keeps its shape: arrows go down only, and heavy libraries have one home each."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import phaselaw

SOURCE = Path(phaselaw.__file__).parent

FLOORS = [
    {"cli", "commands"},
    {"api"},
    {"measure", "report", "plan", "traffic"},
    {"engines", "laws", "rundir"},
    {"study", "machine", "ladder", "servers"},
    {"records", "errors", "files", "tables"},
]
"""From the top down: a room may import from the floors below its own, and from its own room."""

HOMES = {
    "torch": {"machine/probe.py", *(f"engines/{name}.py" for name in ("hf", "hf_model", "hf_profile"))},
    "transformers": {"engines/hf.py", "engines/hf_model.py"},
    "duckdb": {"traffic/log.py"},
    "prometheus_client": {"traffic/prometheus.py"},
    "genai_prices": {"plan/hosted.py"},
}


def room_of(path: Path) -> str:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return "cli" if room in ("__main__", "__init__") else room


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


def test_few_files_stand_outside_the_rooms() -> None:
    assert len(FLOORS) == 6
    assert len([path for path in FILES if path.parent == SOURCE]) <= 9


def test_files_and_functions_stay_short() -> None:
    assert [path for path in FILES if len(path.read_text().splitlines()) > 500] == []
    nodes = ((path, node) for path in FILES for node in ast.walk(ast.parse(path.read_text())))
    functions = ((path, node) for path, node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    assert [f"{path}: {each.name}" for path, each in functions if (each.end_lineno or 0) - each.lineno >= 60] == []


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


HEAVY = {"torch", "transformers", "scipy", "polars", "numpy", "pydantic", "yaml", "rich", "pandas"}


def loaded_by(script: str) -> tuple[set[str], str]:
    """The heavy libraries that a script loads, and what it prints."""
    ending = "\nimport sys\nsys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script + ending], capture_output=True, text=True, check=True)
    return HEAVY & set(done.stderr.split()), done.stdout


def test_help_loads_nothing_heavy() -> None:
    loaded, said = loaded_by("from phaselaw.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass")
    assert loaded == set()
    assert "phaselaw plan" in said


def test_importing_phaselaw_loads_nothing_heavy_and_load_is_at_hand() -> None:
    loaded, said = loaded_by("import phaselaw\nprint(callable(phaselaw.load), phaselaw.__version__)")
    assert loaded == set()
    assert said.startswith("True ")


@pytest.mark.parametrize("process", ["commands.run", "measure.replicates", "measure.on_ray"])
def test_what_measures_starts_without_what_only_the_analysis_needs(process: str) -> None:
    loaded, _ = loaded_by(f"import phaselaw.{process}")
    assert not loaded & {"torch", "scipy", "polars", "numpy"}


EXTRAS = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "gguf",
    "xllamacpp",
    "prometheus_client",
    "duckdb",
    "genai_prices",
    "ray",
)


@pytest.mark.parametrize("command", ["models list", "study list", "study check gpt2-ladder-cpu"])
def test_the_core_works_without_any_extra(command: str) -> None:
    """What is installed here is hidden, as where only the core was installed."""
    hidden = f"import sys\nsys.modules.update(dict.fromkeys({EXTRAS!r}))\nfrom phaselaw.cli import main\n"
    script = f"{hidden}raise SystemExit(main({command.split()!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout
