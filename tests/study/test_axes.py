"""Axes of a sweep: what cells they make, where they can be swept, and that a kept study is not put to them twice."""

from pathlib import Path

import pytest

from phaselaw.errors import StudyError
from phaselaw.study.file import load_study
from phaselaw.study.model import Study

TEXT = """\
run_name: swept
gen_tokens: 4
scenarios: [{name: short, prompt_tokens: 9}]
backends:
  - {name: sim, kind: simulated, batch_size: 2}
models:
  - {name: one, kind: simulated}
  - {name: two, kind: simulated, backends: [sim]}
"""
SERVED = """\
run_name: served
scenarios: [{name: short, prompt_tokens: 9}]
backends: [{name: sim, kind: simulated}, {name: cpp, kind: llamacpp}, {name: far, kind: openai}]
models: [{name: one, kind: simulated}, {name: two, kind: llamacpp}, {name: three, kind: openai}]
"""


def load(tmp_path: Path, *settings: str, text: str = TEXT, backends: list[str] | None = None) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load_study(str(path), settings=settings, backends=backends)


def refused(tmp_path: Path, *settings: str, text: str = SERVED) -> str:
    with pytest.raises(StudyError) as caught:
        load(tmp_path, *settings, text=text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_batch_axis_replaces_the_batch_size_of_each_backend(tmp_path: Path) -> None:
    study = load(tmp_path, "axes.batch_size=[1, 8]")
    assert [(cell.model, cell.batch_size) for cell in study.cells()] == [("one", 1), ("one", 8), ("two", 1), ("two", 8)]
    assert study.cells()[0].key == "sim|one|short|bs1|gen4"


def test_a_prompt_axis_replaces_the_scenarios_which_then_need_not_be_there(tmp_path: Path) -> None:
    without = "".join(line for line in TEXT.splitlines(keepends=True) if not line.startswith("scenarios"))
    for text in (TEXT, without):
        study = load(tmp_path, "axes.prompt_tokens=[16, 64]", text=text)
        assert [(each.name, each.prompt_tokens) for each in study.scenarios] == [("prompt_16", 16), ("prompt_64", 64)]
    only = load_study(str(tmp_path / "study.yaml"), settings=["axes.prompt_tokens=[16, 64]"], scenarios=["prompt_64"])
    assert {cell.scenario for cell in only.cells()} == {"prompt_64"}


def test_a_threads_axis_makes_a_backend_of_each_value(tmp_path: Path) -> None:
    study = load(tmp_path, "axes.threads=[1, 4]")
    assert [(each.name, each.threads) for each in study.backends] == [("sim_threads1", 1), ("sim_threads4", 4)]
    assert {cell.backend for cell in study.cells() if cell.model == "two"} == {"sim_threads1", "sim_threads4"}


def test_a_concurrency_axis_is_of_the_servers_alone(tmp_path: Path) -> None:
    cells = load(tmp_path, "axes.concurrency=[1, 8]", text=SERVED).cells()
    assert sorted((cell.backend, cell.concurrency) for cell in cells) == [
        ("cpp", 1), ("cpp", 8), ("far", 1), ("far", 8), ("sim", 1),
    ]  # fmt: skip


def test_two_axes_make_a_grid(tmp_path: Path) -> None:
    study = load(tmp_path, "axes.batch_size=[1, 2, 4]", "axes.gen_tokens=[8, 16]")
    assert len({cell.key for cell in study.cells()}) == 2 * 3 * 2 == len(study.cells())


def test_a_resolved_study_read_again_is_the_same(tmp_path: Path) -> None:
    study = load(tmp_path, "axes.threads=[1, 4]", "axes.prompt_tokens=[16, 64]", "axes.batch_size=[1, 2]")
    assert Study.model_validate(study.resolved()) == study
    import yaml

    again = load(tmp_path, text=yaml.safe_dump(study.resolved()))
    assert again == study


def test_a_study_without_axes_keeps_the_cells_that_it_had(tmp_path: Path) -> None:
    assert [cell.key for cell in load(tmp_path).cells()] == ["sim|one|short|bs2|gen4", "sim|two|short|bs2|gen4"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("axes.batch_size=[1, 2]", "axes.batch_size: backend cpp is a server, which batches by itself; sweep its conc"),
        ("axes.threads=[1, 2]", "axes.threads: the threads of backend far are not ours to set"),
        ("axes.batch_size=[2, 2]", "axes.batch_size[1]: 2 is there twice"),
        ("axes.prompt_tokens=[0]", "axes.prompt_tokens[0]: should be greater than or equal to 1, not 0"),
        ("axes.batches=[2]", "axes.batches: unknown key"),
    ],
)
def test_an_axis_that_can_not_be_swept_is_refused_in_a_line(tmp_path: Path, setting: str, said: str) -> None:
    assert said in refused(tmp_path, setting)


def test_an_axis_refused_for_one_backend_is_swept_on_the_others(tmp_path: Path) -> None:
    study = load(tmp_path, "axes.batch_size=[1, 2]", text=SERVED, backends=["sim"])
    assert {cell.batch_size for cell in study.cells()} == {1, 2}


def test_clients_without_a_server_and_a_name_that_is_taken_are_refused(tmp_path: Path) -> None:
    assert "axes.concurrency: no backend is a server" in refused(tmp_path, "axes.concurrency=[1]", text=TEXT)
    twice = TEXT.replace("models:", "  - {name: sim_threads2, kind: simulated}\nmodels:")
    assert "makes a backend sim_threads2" in refused(tmp_path, "axes.threads=[2]", text=twice)


def test_too_many_calls_are_counted_over_the_whole_grid(tmp_path: Path) -> None:
    grid = [f"axes.{name}={list(range(1, 101))}" for name in ("batch_size", "gen_tokens", "threads")]
    assert "a study has at most" in refused(tmp_path, *grid, text=TEXT)
