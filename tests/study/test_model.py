"""A study expands into cells, has one identity, ships with the package, and reads TR121's own files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from phaselaw.errors import StudyError
from phaselaw.ladder.spec import LADDER, PREFIX
from phaselaw.study.file import BARE_NAMES, load_study, shipped_studies
from phaselaw.study.model import HfBackend, OllamaBackend, SimulatedBackend, Study

TWO_ENGINES = """\
run_name: two-engines
gen_tokens: 8
scenarios: [micro, {name: long, prompt_tokens: 200}]
backends:
  - {name: cpu, kind: hf}
  - {name: cpu2, kind: hf, batch_size: 2, threads: 2}
  - {name: law, kind: simulated, overhead_ms: 3}
models:
  - models/gpt2-5m
  - {name: big, kind: simulated, params_millions: 900}
  - {name: models/tiny-gpt2, kind: hf, backends: [cpu2]}
"""


def load(tmp_path: Path, text: str, **options: Any) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load_study(str(path), **options)


def identities(study: Study) -> list[tuple[str, str, str, int, int]]:
    return [(cell.model, cell.backend, cell.scenario, cell.batch_size, cell.gen_tokens) for cell in study.cells()]


# Cells.


def test_cells_are_models_on_backends_of_their_kind_under_scenarios_and_budgets_in_file_order(tmp_path: Path) -> None:
    study = load(tmp_path, TWO_ENGINES + "axes: {gen_tokens: [4, 2]}\n")
    pairs = [("models/gpt2-5m", "cpu", 1), ("models/gpt2-5m", "cpu2", 2), ("big", "law", 1)]
    pairs += [("models/tiny-gpt2", "cpu2", 2)]
    assert identities(study) == [
        (model, backend, scenario, batch, budget)
        for model, backend, batch in pairs
        for scenario in ("micro", "long")
        for budget in (4, 2)
    ]
    assert {cell.backend_kind for cell in study.cells() if cell.backend == "law"} == {"simulated"}


def test_without_an_axis_the_one_budget_is_gen_tokens(tmp_path: Path) -> None:
    assert load(tmp_path, TWO_ENGINES).budgets() == (8,)
    assert load(tmp_path, TWO_ENGINES + "gen_tokens_list: [4, 2]\n").budgets() == (4, 2)


def test_every_cell_of_a_study_has_a_key_of_its_own(tmp_path: Path) -> None:
    study = load(tmp_path, TWO_ENGINES + "axes: {gen_tokens: [4, 2]}\n")
    assert len({cell.key for cell in study.cells()}) == len(study.cells()) == 16


def test_a_part_is_found_by_its_name(tmp_path: Path) -> None:
    study = load(tmp_path, TWO_ENGINES)
    assert study.backend("cpu2").batch_size == 2
    assert study.model("big", "simulated").params_millions == 900
    assert study.scenario("long").prompt_tokens == 200
    assert [model.name for model in study.models_of("cpu2")] == ["models/gpt2-5m", "models/tiny-gpt2"]
    with pytest.raises(KeyError):
        study.model("big", "hf")


# Identity.


def test_the_identity_is_of_what_is_asked_not_of_how_it_is_written(tmp_path: Path) -> None:
    short = "run_name: x\nscenarios: [micro]\nbackends: [hf_cpu_fp32]\nmodels: [models/tiny-gpt2]\n"
    long = """\
        # The same, in other words.
        {"models": [{"kind": "hf", "params_millions": 0.103, "name": "models/tiny-gpt2"}],
         "backends": [{"dtype": "fp32", "device": "cpu", "kind": "hf", "name": "hf_cpu_fp32", "batch_size": 1,
                       "prefill_logits": "all"}],
         "scenarios": [{"prompt": "Hello", "name": "micro"}], "seed": 42, "order": "rounds", "axes": {},
         "warmup_repetitions": 1, "repetitions": 3, "gen_tokens": 64, "run_name": "x"}"""
    assert load(tmp_path, short) == load(tmp_path, long)
    assert load(tmp_path, short).sha256 == load(tmp_path, long).sha256


@pytest.mark.parametrize(
    "setting",
    [
        "run_name=y",
        "gen_tokens=9",
        "repetitions=4",
        "warmup_repetitions=0",
        "seed=7",
        "order=cells",
        "axes.gen_tokens=[8]",
        "scenarios.long.prompt_tokens=201",
        "backends.cpu.dtype=bf16",
        "backends.law.overhead_ms=3.5",
        "models.big.params_millions=901",
    ],
)
def test_the_identity_changes_with_anything_that_is_asked(setting: str, tmp_path: Path) -> None:
    assert load(tmp_path, TWO_ENGINES, settings=[setting]).sha256 != load(tmp_path, TWO_ENGINES).sha256


def test_the_identity_is_the_same_in_every_process(tmp_path: Path) -> None:
    expected = load(tmp_path, TWO_ENGINES).sha256
    script = f"from phaselaw.study.file import load_study\nprint(load_study({str(tmp_path / 'study.yaml')!r}).sha256)"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
        )
        assert done.stdout.strip() == expected


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_a_resolved_study_is_plain_json_and_reads_back_as_the_same_study(name: str) -> None:
    study = load_study(name)
    again = Study.model_validate(json.loads(json.dumps(study.resolved(), allow_nan=False)))
    assert (again, again.sha256) == (study, study.sha256)


def test_a_resolved_study_says_its_defaults(tmp_path: Path) -> None:
    resolved = load(tmp_path, TWO_ENGINES).resolved()
    assert (resolved["repetitions"], resolved["seed"], resolved["order"]) == (3, 42, "rounds")
    assert resolved["backends"][0] == {
        "name": "cpu",
        "kind": "hf",
        "device": "cpu",
        "dtype": "fp32",
        "batch_size": 1,
        "threads": None,
        "prefill_logits": "last",
        "execution": "eager",
        "fresh_process": False,
        "keep_loaded": "auto",
        "memory_mb": None,
    }


# Allow-lists.


def test_an_allow_list_keeps_the_files_order_and_drops_what_is_left_without_a_partner(tmp_path: Path) -> None:
    study = load(tmp_path, TWO_ENGINES, models=["models/tiny-gpt2", "models/gpt2-5m"])
    assert [model.name for model in study.models] == ["models/gpt2-5m", "models/tiny-gpt2"]
    assert [backend.name for backend in study.backends] == ["cpu", "cpu2"]
    only_cpu = load(tmp_path, TWO_ENGINES, backends=["cpu"])
    assert [model.name for model in only_cpu.models] == ["models/gpt2-5m"], "tiny-gpt2 is for cpu2 only"
    assert identities(load(tmp_path, TWO_ENGINES, scenarios=["long"], models=["big"])) == [("big", "law", "long", 1, 8)]


def test_an_allow_list_that_names_everything_changes_nothing(tmp_path: Path) -> None:
    everything = load(
        tmp_path,
        TWO_ENGINES,
        models=["big", "models/tiny-gpt2", "models/gpt2-5m"],
        backends=["cpu", "cpu2", "law"],
        scenarios=["long", "micro"],
    )
    assert everything == load(tmp_path, TWO_ENGINES)


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ({"models": ["models/gpt2-6m"]}, "models: no 'models/gpt2-6m' in this study (did you mean 'models/gpt2-5m'?)"),
        ({"backends": ["ollama"]}, "backends: no 'ollama' in this study; it has: cpu, cpu2, law"),
        ({"scenarios": ["micro", "lng"]}, "scenarios: no 'lng' in this study (did you mean 'long'?)"),
        ({"models": []}, "models: the list of names is empty; it has: models/gpt2-5m, big, models/tiny-gpt2"),
        ({"models": ["big"], "backends": ["cpu"]}, "nothing is left to measure"),
        ({"models": ["models/tiny-gpt2"], "backends": ["cpu"]}, "nothing is left to measure"),
    ],
)
def test_an_unknown_or_empty_choice_is_refused_with_a_hint(
    lists: dict[str, list[str]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError) as caught:
        load(tmp_path, TWO_ENGINES, **lists)
    assert str(caught.value).startswith(f"{tmp_path / 'study.yaml'}: ")
    assert says in str(caught.value)


# Dry runs.


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_a_simulated_copy_has_the_same_cells(name: str) -> None:
    study = load_study(name)
    copy = study.as_simulated()
    # A server is simulated as one client, so that a cell of several clients is there once.
    assert identities(copy) == list(dict.fromkeys(identities(study)))
    assert {backend.kind for backend in copy.backends} == {model.kind for model in copy.models} == {"simulated"}
    assert (copy.run_name, copy.seed, copy.order) == (study.run_name, study.seed, study.order)
    assert Study.model_validate(copy.resolved()) == copy


def test_a_simulated_copy_knows_the_ladders_sizes_and_the_studys_labels(tmp_path: Path) -> None:
    text = TWO_ENGINES.replace("models/gpt2-5m", "{name: models/gpt2-5m, kind: hf}")
    copy = load(tmp_path, text).as_simulated({model.name: (model.params / 1e6, model.n_layer) for model in LADDER})
    five, tiny = (copy.model(name, "simulated") for name in ("models/gpt2-5m", "models/tiny-gpt2"))
    sizes = {model.name: (model.params / 1e6, model.n_layer) for model in LADDER}
    assert (five.params_millions, five.n_layer) == sizes["gpt2-5m"]
    assert tiny.n_layer == sizes["tiny-gpt2"][1]
    assert copy.model("big", "simulated").params_millions == 900


def test_what_is_simulated_already_keeps_its_law(tmp_path: Path) -> None:
    law = load(tmp_path, TWO_ENGINES).as_simulated().backend("law")
    assert isinstance(law, SimulatedBackend)
    assert (law.overhead_ms, law.cold_start_ms) == (3, 0)


def test_one_name_on_two_engines_stays_on_both(tmp_path: Path) -> None:
    text = TWO_ENGINES.replace("{name: big, kind: simulated", "{name: models/gpt2-5m, kind: simulated")
    study = load(tmp_path, text)
    assert sorted(identities(study.as_simulated())) == sorted(identities(study))


names = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)


@settings(max_examples=60, deadline=None)
@given(names, names, names, st.lists(st.integers(1, 512), min_size=1, max_size=3, unique=True), st.data())
def test_any_sound_study_has_one_cell_for_each_pair_scenario_and_budget(
    scenarios: list[str], backends: list[str], models: list[str], budgets: list[int], data: st.DataObject
) -> None:
    study = Study.model_validate(
        {
            "run_name": "any",
            "scenarios": [{"name": name, "prompt_tokens": 3} for name in scenarios],
            "backends": [
                {"name": name, "kind": data.draw(st.sampled_from(["hf", "simulated", "ollama"]))} for name in backends
            ],
            "models": [
                {"name": name, "kind": data.draw(st.sampled_from(["hf", "simulated", "ollama"]))} for name in models
            ],
            "axes": {"gen_tokens": budgets},
        }
    )
    pairs = [(m, b) for m in study.models for b in study.backends if m.kind == b.kind]
    assert len(study.cells()) == len(set(study.cells())) == len(pairs) * len(scenarios) * len(budgets)
    assert sorted(identities(study.as_simulated())) == sorted(identities(study))


# What ships, and TR121's own files.


def raw(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


def test_the_default_study_is_the_ladder_on_this_cpu() -> None:
    study = load_study("gpt2-ladder-cpu")
    assert [model.name for model in study.models] == [f"models/{model.name}" for model in LADDER]
    assert [scenario.prompt_tokens for scenario in study.scenarios] == [1, 9, 17]
    assert (study.replicates, study.warmup_repetitions, study.repetitions) == (3, 1, 1)
    assert (study.gen_tokens, study.order) == (64, "rounds")
    assert study.backends == (HfBackend(name="hf_cpu_fp32", kind="hf", device="cpu", dtype="fp32"),)


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_a_shipped_study_is_named_like_its_file_and_says_what_it_asks(name: str) -> None:
    path = shipped_studies()[name]
    assert load_study(name).run_name == name
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and first.endswith("?") and len(first) <= 120


TR121 = {
    "tr121-scaling": "scaling.yaml",
    "gemma-family": "gemma_family.yaml",
    "decode-sweep": "decode_sweep.yaml",
    "boundary-batch8": "boundary_shift_batch8.yaml",
    "boundary-gen512": "boundary_shift_gen512.yaml",
}


@pytest.mark.parametrize("file", sorted(TR121.values()))
def test_tr121s_own_studies_are_read_as_they_are(file: str, reference_data: Path) -> None:
    path = reference_data / "tr121" / "configs" / file
    study, said = load_study(str(path)), raw(path)
    for key in ("run_name", "repetitions", "warmup_repetitions", "seed"):
        assert getattr(study, key) == said[key]
    assert study.budgets() == tuple(said.get("gen_tokens_list", [said.get("gen_tokens")]))
    assert study.order == "rounds", "TR121's files don't say; rounds is our default"
    for key in ("scenarios", "backends", "models"):
        for part, entry in zip(getattr(study, key), said[key], strict=True):
            if isinstance(entry, str):
                assert part.name == entry
            else:
                assert {name: getattr(part, name) for name in entry} == entry


def without_what_is_ours(study: Study) -> list[Any]:
    """Its backends without addresses, and without what TR121's files leave to its runner: the logits of a prefill."""
    ours: dict[type, dict[str, Any]] = {OllamaBackend: {"url": None}, HfBackend: {"prefill_logits": "all"}}
    return [backend.model_copy(update=ours[type(backend)]) for backend in study.backends]


@pytest.mark.parametrize(("name", "file"), TR121.items())
def test_the_shipped_tr121_studies_ask_what_its_files_ask_in_its_order(
    name: str, file: str, reference_data: Path
) -> None:
    ours, theirs = load_study(name), load_study(str(reference_data / "tr121" / "configs" / file))
    assert ours.order == "cells"
    assert identities(ours) == identities(theirs)
    assert without_what_is_ours(ours) == without_what_is_ours(theirs), "ours takes the address from OLLAMA_HOST"
    for key in ("scenarios", "models", "repetitions", "warmup_repetitions", "seed"):
        assert getattr(ours, key) == getattr(theirs, key)


def test_tr121s_labels_of_the_ladder_are_the_ladders_own_sizes() -> None:
    labels = {name: entry["params_millions"] for name, entry in BARE_NAMES["models"].items() if entry["kind"] == "hf"}
    assert labels == {f"{PREFIX}{model.name}": round(model.params / 1e6, 3) for model in LADDER}


def test_bare_names_mean_what_tr121s_scaling_study_says(tmp_path: Path, reference_data: Path) -> None:
    said = raw(reference_data / "tr121" / "configs" / "scaling.yaml")
    bare = {key: [entry["name"] for entry in said[key]] for key in ("scenarios", "backends", "models")}
    study = load(tmp_path, yaml.safe_dump({"run_name": "bare", **bare}))
    theirs = load_study(str(reference_data / "tr121" / "configs" / "scaling.yaml"))
    assert (study.scenarios, study.models) == (theirs.scenarios, theirs.models)
    assert without_what_is_ours(study) == without_what_is_ours(theirs)


# Names that may be left out, or be shorter.

SHORT = """\
run_name: short
scenarios: [micro]
backends: [hf_cpu_fp32, {name: cpp, kind: llamacpp}, {name: law, kind: simulated}]
models:
  - gpt2-5m
  - {name: gpt2-25m, kind: hf}
  - {name: gpt2-25m, kind: llamacpp}
  - {name: gpt2-25m, kind: simulated}
"""


def test_a_model_of_the_ladder_goes_by_its_short_name_where_nothing_else_can_be_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    full = SHORT.replace("gpt2-5m", "models/gpt2-5m").replace("gpt2-25m, kind: hf", "models/gpt2-25m, kind: hf")
    full = full.replace("gpt2-25m, kind: llamacpp", "models/gpt2-25m, kind: llamacpp")
    study = load(tmp_path, SHORT)
    assert [model.name for model in study.models] == [
        "models/gpt2-5m", "models/gpt2-25m", "models/gpt2-25m", "gpt2-25m",
    ]  # fmt: skip
    assert study.sha256 == load(tmp_path, full).sha256
    assert study.models[0].params_millions == 5.037


def test_a_short_name_on_a_server_with_names_of_its_own_is_the_servers(tmp_path: Path) -> None:
    text = SHORT.replace("kind: llamacpp}, {name: law", "kind: llamacpp, url: 'http://localhost:1'}, {name: law")
    assert [model.name for model in load(tmp_path, text).models if model.kind == "llamacpp"] == ["gpt2-25m"]


def test_a_short_name_that_is_a_folder_here_is_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2-25m").mkdir()
    assert [model.name for model in load(tmp_path, SHORT).models if model.kind == "hf"] == [
        "models/gpt2-5m",
        "gpt2-25m",
    ]
    with pytest.raises(StudyError, match="no known entry 'gpt2-25m'"):
        load(tmp_path, "scenarios: [micro]\nbackends: [hf_cpu_fp32]\nmodels: [gpt2-25m]\n")


def test_short_names_are_taken_by_the_allow_list_by_settings_and_as_the_same_weights(tmp_path: Path) -> None:
    study = load(tmp_path, TWO_ENGINES, models=["gpt2-5m"], settings=["models.gpt2-5m.params_millions=4"])
    assert [(model.name, model.params_millions) for model in study.models] == [("models/gpt2-5m", 4)]
    ollama = (
        "run_name: x\nscenarios: [micro]\nbackends: [ollama]\nmodels: [{name: m, kind: ollama, same_as: gpt2-5m}]\n"
    )
    assert load(tmp_path, ollama).models[0].identity == "models/gpt2-5m"


def test_a_study_without_a_name_has_its_files(tmp_path: Path) -> None:
    assert load(tmp_path, TWO_ENGINES.replace("run_name: two-engines\n", "")).run_name == "study"
    odd = tmp_path / "a|b.yaml"
    odd.write_text(TWO_ENGINES.replace("run_name: two-engines\n", ""))
    with pytest.raises(StudyError, match="run_name: a name holds no control characters"):
        load_study(str(odd))


BATCH = """
run_name: batch
axes: {batch_size: [1, 8]}
scenarios: [{name: mixed, prompts: [Hello, "Why?", Go]}, {name: short, prompt: Hello}]
backends: [{name: hf, kind: hf}]
models: [{name: m, kind: hf}]
"""


def test_different_prompts_are_one_batch_of_as_many_sequences(tmp_path: Path) -> None:
    study = load(tmp_path, BATCH)
    assert [(cell.scenario, cell.batch_size) for cell in study.cells()] == [("mixed", 3), ("short", 1), ("short", 8)]
    assert study.scenario("mixed").text == "Hello\nWhy?\nGo"


def test_a_server_is_given_no_batch_of_prompts(tmp_path: Path) -> None:
    text = BATCH.replace("kind: hf}", "kind: ollama}").replace("axes: {batch_size: [1, 8]}", "")
    with pytest.raises(
        StudyError, match=r":4: scenarios\[0\].prompts: backend hf is a server, which batches by itself"
    ):
        load(tmp_path, text)


def test_tr121s_studies_ask_for_the_logits_of_all_positions_and_ours_for_the_last() -> None:
    asked = {
        name: {backend.prefill_logits for backend in load_study(name).backends if isinstance(backend, HfBackend)}
        for name in shipped_studies()
    }
    of_tr121 = {"tr121-scaling", "decode-sweep", "boundary-batch8", "boundary-gen512"}
    assert {name for name, positions in asked.items() if positions == {"all"}} == of_tr121
    assert all(positions <= {"last"} for name, positions in asked.items() if name not in of_tr121)
