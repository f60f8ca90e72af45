"""What docs/sweeps.md shows is true: its commands are taken, its tables are written, its Python runs."""

import re
import shlex
from pathlib import Path

import pytest

from phaselaw.cli import build_parser, main
from phaselaw.commands.sweep import setting_of
from phaselaw.study.file import load_study, shipped_studies

TEXT = (Path(__file__).parent.parent / "docs" / "sweeps.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for block in re.findall(r"^```sh\n(.*?)^```", TEXT, flags=re.M | re.S)
            for line in block.splitlines()]  # fmt: skip
STUDY = """\
run_name: docs
gen_tokens: 16
scenarios: [{name: short, prompt_tokens: 9}]
backends: [{name: sim, kind: simulated, sequence_ms: 0.5, context_ms: 0.01, prompt_ms: 0.1}]
models: [{name: a, kind: simulated, params_millions: 5}, {name: b, kind: simulated, params_millions: 25},
         {name: c, kind: simulated, params_millions: 50}]
"""


def rows(heading: str) -> list[str]:
    """The names in code at the head of a table's rows, under a heading."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [name for cell in re.findall(r"^\| (`.*?) \|", section, re.M) for name in re.findall(r"`(.*?)`", cell)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_in_the_docs_is_one_that_is_taken(words: list[str]) -> None:
    args = build_parser().parse_args(words[1:])
    study = load_study(args.study, settings=[setting_of(axis) for axis in args.axes])
    assert any(values for _, values in study.axes)


def test_the_shipped_sweeps_are_named_each() -> None:
    swept = {name for name in shipped_studies() if any(values for _, values in load_study(name).axes)}
    named = set(rows("Shipped sweeps"))
    assert swept <= named <= set(shipped_studies())


def test_the_tables_are_written_and_the_python_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    run = tmp_path / "run"
    axes = ["--axis", "batch_size=1,2,4", "--axis", "prompt_tokens=32,128,384"]
    assert main(["sweep", str(tmp_path / "study.yaml"), *axes, "--out", str(run)]) == 0
    assert {f"{name}.csv" for name in rows("Tables")} <= {path.name for path in (run / "analysis").iterdir()}
    capsys.readouterr()
    (example,) = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.M | re.S)
    exec(example, {"RUN": run})
    step, measured, beyond = capsys.readouterr().out.splitlines()
    assert float(step) > 0
    assert measured == "False"
    assert float(beyond) > float(step)
