"""``phaselaw compare``: exit 3 on a regression that two runs a side show, 1 where runs can't be compared."""

import json
import shutil
from pathlib import Path

import pytest
from measured import measured

from phaselaw.cli import main
from phaselaw.rundir.derive import sealed
from phaselaw.study.file import load_study

STUDY = """\
run_name: compared
gen_tokens: 4
repetitions: 3
seed: 1
scenarios: [{name: short, prompt_tokens: 9}, {name: long, prompt_tokens: 40}]
backends: [{name: sim, kind: simulated, overhead_ms: 0, params_ms: 1, call_noise: 0.02, round_noise: 0.01}]
models:
  - {name: small, kind: simulated, params_millions: 10}
  - {name: middle, kind: simulated, params_millions: 30}
  - {name: large, kind: simulated, params_millions: 100}
"""


pytestmark = pytest.mark.usefixtures("each_run_is_read_once")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three runs of one study, and three of the same with every latency 1.5 times as long."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "a.yaml").write_text(STUDY)
    (folder / "b.yaml").write_text(STUDY.replace("params_ms: 1,", "params_ms: 1.5,"))
    found = {}
    for study in ("a", "b"):
        for seed in (1, 2, 3):
            asked = load_study(str(folder / f"{study}.yaml"), settings=[f"seed={seed}"])
            found[f"{study}{seed}"] = measured(asked, folder / f"{study}{seed}")
    return found


def words(runs: dict[str, Path], *names: str) -> list[str]:
    return [str(runs.get(name, name)) for name in names]


def test_two_runs_a_side_that_differ_by_half_exit_with_3(runs: dict[str, Path], capsys) -> None:
    asked = words(runs, "compare", "a1", "a2", "--with", "b1", "b2", "--allow-different")
    assert main([*asked, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["judged"] and document["regressions"] >= 18 and document["outcome"] == "regressed"
    assert len(document["cells"]) == 18 and len(document["whole"]) == 3
    for row in document["cells"]:
        assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
        assert row["ratio"] == pytest.approx(1.5, rel=0.1)
    assert any("params_ms: 1.0 and 1.5" in note for note in document["notes"])
    assert main(asked) == 3
    assert "REGRESSION" in capsys.readouterr().out


def test_a_threshold_above_the_change_is_not_exceeded(runs: dict[str, Path], capsys) -> None:
    asked = words(runs, "compare", "a1", "a2", "a3", "--with", "b1", "b2", "b3", "--allow-different")
    assert main([*asked, "--threshold", "0.8"]) == 0
    assert "No regression of more than 80.0%" in capsys.readouterr().out


def test_other_settings_are_refused_in_one_line_that_names_them(runs: dict[str, Path], capsys) -> None:
    assert main(words(runs, "compare", "a1", "b1")) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "params_ms: 1.0 and 1.5" in captured.err and "--allow-different" in captured.err


def test_another_host_is_refused_and_compared_when_told(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(runs["a2"], elsewhere)
    manifest = json.loads((elsewhere / "manifest.json").read_text())
    manifest["host"]["cpu_model"] = "another processor"
    (elsewhere / "manifest.json").write_text(json.dumps(sealed(manifest)))
    asked = [*words(runs, "compare", "a1"), str(elsewhere)]
    assert main(asked) == 1
    assert "another processor" in capsys.readouterr().err
    assert main([*asked, "--allow-different"]) == 0
    assert "A and B differ in host cpu_model" in capsys.readouterr().err


def test_one_run_a_side_can_not_be_judged(runs: dict[str, Path], capsys) -> None:
    assert main(words(runs, "compare", "a1", "a2")) == 0
    assert "Significance can't be judged" in capsys.readouterr().out
    assert main(words(runs, "compare", "a1", "b1", "--allow-different", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert not document["judged"] and document["interval_basis"] == "calls within runs"
    assert {row["verdict"] for row in document["cells"]} == {"not judged"}
    assert document["outcome"] == "can't be told" and document["runs_needed"] == 2


def test_a_run_against_itself_has_ratios_of_one_and_is_named(runs: dict[str, Path], capsys) -> None:
    assert main(words(runs, "compare", "a1", "a2", "--with", "a1", "a2", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["ratio"] for row in document["cells"]] == pytest.approx([1.0] * 18)
    assert [note.split(" stands on both")[0] for note in document["notes"][:2]] == words(runs, "a1", "a2")


def test_rows_from_elsewhere_are_compared_with_a_note_that_the_host_is_unknown(
    runs: dict[str, Path], tmp_path: Path, capsys
) -> None:
    bare = tmp_path / "bare.csv"
    shutil.copy(runs["a2"] / "metrics.csv", bare)
    assert main([*words(runs, "compare", "a1"), str(bare)]) == 0
    assert "bare.csv: its host is unknown" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["a1"], ["a1", "a2", "a3"], ["a1", "a2", "--threshold", "-0.1"], ["a1", "a2", "--level", "1"]]
)
def test_what_can_not_be_followed_is_a_usage_error(runs: dict[str, Path], wrong: list[str], capsys) -> None:
    assert main(words(runs, "compare", *wrong)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_runs_with_no_cell_in_common_are_told_in_one_line(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(STUDY.replace("name: sim", "name: another"))
    measured(load_study(str(other)), tmp_path / "other")
    assert main([*words(runs, "compare", "a1"), str(tmp_path / "other"), "--allow-different"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "no cell in common" in captured.err and captured.err.count("\n") == 1


def test_a_run_given_twice_on_one_side_is_refused(runs: dict[str, Path], capsys) -> None:
    assert main(words(runs, "compare", "a1", "a1", "--with", "a2", "a3")) == 1
    assert "twice" in capsys.readouterr().err
