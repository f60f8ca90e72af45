"""What the docs show is true: their studies load, and their tables name every key with its default."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from phaselaw.cli import build_parser
from phaselaw.study.file import BARE_NAMES, load_study, study_schema

STUDY_FORMAT = Path(__file__).parent.parent / "docs" / "study-format.md"
TEXT = STUDY_FORMAT.read_text(encoding="utf-8")
ENGINES = (STUDY_FORMAT.parent / "engines.md").read_text(encoding="utf-8")
README = (STUDY_FORMAT.parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", TEXT + README + ENGINES, flags=re.MULTILINE | re.DOTALL)

PARTS = {
    "The keys of a study": "Study",
    "Scenarios": "Scenario",
    "Models": "ModelEntry",
    "kind: hf": "HfBackend",
    "kind: simulated": "SimulatedBackend",
    "kind: ollama": "OllamaBackend",
    "kind: llamacpp": "LlamacppBackend",
    "kind: openai": "OpenaiBackend",
    "Sweeps": "Axes",
}
"""Section of docs/study-format.md to the type whose keys its table lists."""


def rows(section: str) -> dict[str, str]:
    """Key to default, from the table of a section."""
    body = re.split(r"^#+ ", TEXT.partition(f"# {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return {key: default for key, _, default in re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", body, re.MULTILINE)}


def keys(part: str) -> dict[str, str]:
    """Key to default as the docs write it, from the schema."""
    schema = study_schema()
    definition = schema if part == "Study" else schema["$defs"][part]
    found = {}
    required = {*definition.get("required", ()), *definition.get("anyOf", [{}])[0].get("required", ())}
    for key, said in definition["properties"].items():
        if key in required:
            found[key] = "required"
        elif key == "run_name":
            found[key] = "the file's name"
        elif said.get("default") is None and "anyOf" in said:
            found[key] = "none"
        else:
            default = yaml.safe_dump(said.get("default", {}), default_flow_style=True)
            found[key] = f"`{default.removesuffix('...' + chr(10)).strip()}`"
    return found


def test_the_docs_hold_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: str(yaml.safe_load(text)["run_name"]))
def test_a_study_in_the_docs_loads(example: str, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(example)
    assert load_study(str(path)).cells()


def test_the_first_example_has_the_cells_that_the_text_counts(tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(EXAMPLES[0])
    study = load_study(str(path))
    assert len(study.cells()) == 8
    assert len(study.cells()) * (study.warmup_repetitions + study.repetitions) == 48


@pytest.mark.parametrize(("section", "part"), PARTS.items())
def test_a_table_names_every_key_with_its_default(section: str, part: str) -> None:
    expected = keys(part)
    expected.pop("gen_tokens_list", None)
    assert rows(section) == expected


def test_every_part_of_a_study_has_its_table() -> None:
    assert set(study_schema()["$defs"]) <= set(PARTS.values())


def test_the_bare_names_are_all_named() -> None:
    section = TEXT.partition("## Bare names")[2].partition("\n## ")[0]
    names = [name for known in BARE_NAMES.values() for name in known if not name.startswith("models/")]
    assert [name for name in names if f"`{name}`" not in section] == []


def commands() -> list[list[str]]:
    """The ``phaselaw run`` lines of the shell examples, as words."""
    blocks = re.findall(r"^```sh\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.startswith("phaselaw run")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_setting_in_the_docs_is_one_that_works(words: list[str]) -> None:
    args = build_parser().parse_args(words[1:])
    assert args.settings
    assert load_study(args.study, settings=args.settings) != load_study(args.study)
