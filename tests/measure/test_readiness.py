"""What this machine lacks for a study, and the part of it that runs all the same."""

import pytest

from phaselaw import engines
from phaselaw.errors import NotReadyError
from phaselaw.measure.begin import lacks, runnable_part
from phaselaw.study.model import Study


class Machine:
    """An engine module of a machine that lacks a backend and a model."""

    @staticmethod
    def lacking(backend, models) -> list[str]:
        if backend.name == "gpu" and not models:
            return ["backend gpu: no CUDA here; use device: cpu"]
        if backend.name == "odd" and not models:
            return [engines.Doubt("backend odd: its list can't be read")]
        return [f"model {model.name}: absent; put it there" for model in models if model.name == "absent"]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def module_for(kind: str) -> object:
        if kind == "ollama":
            raise NotReadyError("no engine of kind 'ollama'")
        return Machine

    monkeypatch.setattr(engines, "module_for", module_for)
    monkeypatch.setattr("phaselaw.measure.begin.module_for", module_for)


def study(backends: list[str], models: list[str], **more) -> Study:
    return Study.model_validate(
        {
            "run_name": "t",
            "scenarios": [{"name": "micro", "prompt_tokens": 1}],
            "backends": [{"name": name, "kind": "hf"} for name in backends] + more.get("other_backends", []),
            "models": [{"name": name, "kind": "hf"} for name in models] + more.get("other_models", []),
        }
    )


SERVED = {
    "other_backends": [{"name": "server", "kind": "ollama"}],
    "other_models": [{"name": "llama", "kind": "ollama"}],
}


def pairs(asked: Study) -> set[tuple[str, str]]:
    return {(cell.backend, cell.model) for cell in asked.cells()}


def test_a_machine_that_has_all_lacks_nothing() -> None:
    assert lacks(study(["cpu"], ["here"])) == []


def test_a_backend_that_cant_run_is_told_once_whatever_its_models() -> None:
    [lack] = lacks(study(["cpu", "gpu"], ["here", "there"]))
    assert (lack.backend, lack.model) == ("gpu", None)


def test_a_model_is_told_for_each_backend_that_would_run_it() -> None:
    lacking = lacks(study(["cpu", "mps"], ["here", "absent"]))
    assert {(lack.backend, lack.model) for lack in lacking} == {("cpu", "absent"), ("mps", "absent")}


def test_a_kind_without_an_engine_is_a_lack_and_no_fault_of_the_study() -> None:
    [lack] = lacks(study(["cpu"], ["here"], **SERVED))
    assert (lack.backend, lack.model, lack.what) == ("server", None, "backend server: no engine of kind 'ollama'")


def test_the_part_that_runs_is_all_but_what_is_lacked() -> None:
    asked = study(["cpu", "gpu"], ["here", "absent"], **SERVED)
    part = runnable_part(asked, lacks(asked))
    assert pairs(part) == {("cpu", "here")}
    assert [backend.name for backend in part.backends] == ["cpu"]


def test_a_model_stays_on_the_backends_that_have_it() -> None:
    asked = study(["cpu", "gpu"], ["here", "there"])
    assert pairs(runnable_part(asked, lacks(asked))) == {("cpu", "here"), ("cpu", "there")}


def test_the_part_that_runs_lacks_nothing_and_is_a_study_like_any() -> None:
    asked = study(["cpu", "gpu"], ["here", "absent"])
    part = runnable_part(asked, lacks(asked))
    assert lacks(part) == []
    assert Study.model_validate(part.resolved()) == part


def test_where_nothing_runs_all_that_is_lacked_is_told() -> None:
    asked = study(["gpu"], ["here"], **SERVED)
    with pytest.raises(NotReadyError, match=r"nothing of this study can run here: .*no CUDA.*no engine"):
        runnable_part(asked, lacks(asked))


def test_what_cant_be_asked_is_a_doubt_that_leaves_nothing_out() -> None:
    asked = study(["cpu", "odd"], ["here"])
    told = lacks(asked)
    assert [(each.what, each.doubt) for each in told] == [("backend odd: its list can't be read", True)]
    assert runnable_part(asked, told).cells() == asked.cells()
