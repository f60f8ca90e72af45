"""The JSON schema that editors use takes what the reader takes, and refuses what it can see is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from phaselaw.errors import StudyError
from phaselaw.study.file import load_study, shipped_studies, study_schema
from phaselaw.study.model import SCHEMA_VERSION

VALIDATOR = Draft202012Validator(study_schema())

SOUND: dict[str, Any] = {
    "run_name": "sound",
    "scenarios": [{"name": "short", "prompt_tokens": 9}],
    "backends": [{"name": "fake", "kind": "simulated"}],
    "models": [{"name": "one", "kind": "simulated"}],
}


def raw(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def is_read(data: Any, tmp_path: Path) -> bool:
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(data))
    try:
        load_study(str(path))
    except StudyError:
        return False
    return True


def test_the_schema_is_one_and_says_its_version() -> None:
    schema = study_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["x-version"] == SCHEMA_VERSION == 1
    assert schema["$id"] == f"urn:phaselaw:study:{SCHEMA_VERSION}"


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_the_shipped_studies_are_valid(name: str) -> None:
    VALIDATOR.validate(raw(shipped_studies()[name]))
    VALIDATOR.validate(load_study(name).resolved())


def test_tr121s_own_studies_are_valid(reference_data: Path) -> None:
    files = sorted((reference_data / "tr121" / "configs").glob("*.yaml"))
    assert len(files) == 5
    for path in files:
        VALIDATOR.validate(raw(path))


def test_every_key_is_described() -> None:
    schema = study_schema()
    parts = {"study": schema, **schema["$defs"]}
    lacking = [
        f"{part}.{key}"
        for part, definition in parts.items()
        for key, said in definition.get("properties", {}).items()
        if not said.get("description")
    ]
    assert lacking == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"gen_token": 8},
        {"gen_tokens": "8"},
        {"gen_tokens": 0},
        {"gen_tokens": True},
        {"repetitions": -1},
        {"seed": 2**63},
        {"order": "random"},
        {"run_name": 3},
        {"run_name": "a|b"},
        {"run_name": " a"},
        {"run_name": ""},
        {"run_name": "a\nb"},
        {"axes": {"gen_tokens": []}},
        {"axes": {"gen_tokens": 8}},
        {"axes": {"batch": [8]}},
        {"axes": {"gen_tokens": [8]}, "gen_tokens_list": [8]},
        {"gen_tokens_list": [8, 8]},
        {"scenarios": []},
        {"scenarios": ["nowhere"]},
        {"scenarios": [{"name": "x"}]},
        {"scenarios": [{"name": "x", "prompt": "Hi", "prompt_tokens": 3}]},
        {"backends": [{"name": "x"}]},
        {"backends": [{"name": "x", "kind": "nothing"}]},
        {"backends": [{"name": "x", "kind": "hf", "device": "tpu"}]},
        {"backends": [{"name": "x", "kind": "hf", "dtype": "int8"}]},
        {"backends": [{"name": "x", "kind": "simulated", "failure_rate": 2}]},
        {"backends": [{"name": "x", "kind": "ollama", "url": "http://me:pw@host"}]},
        {"backends": [{"name": "x", "kind": "ollama", "batch_size": 2}]},
        {"models": [3]},
        {"models": [{"name": "x", "kind": "simulated", "params_millions": 0}]},
        {"models": [{"name": "x", "kind": "simulated", "backends": []}]},
    ],
    ids=str,
)
def test_what_the_schema_refuses_the_reader_refuses_too(wrong: dict[str, Any], tmp_path: Path) -> None:
    assert VALIDATOR.is_valid(SOUND) and is_read(SOUND, tmp_path)
    broken = SOUND | wrong
    assert not VALIDATOR.is_valid(broken)
    assert not is_read(broken, tmp_path)


names = st.text(st.sampled_from("ab-é:/.\U0001f600 "), min_size=1, max_size=5)
scenario = st.one_of(
    st.sampled_from(["micro", "short", "medium"]),
    st.fixed_dictionaries({"name": names, "prompt_tokens": st.integers(-1, 9)}),
    st.fixed_dictionaries({"name": names, "prompt": st.text(max_size=3), "prompt_tokens": st.none()}),
)
backend = st.fixed_dictionaries(
    {"name": names, "kind": st.sampled_from(["hf", "simulated", "ollama"])},
    optional={
        "batch_size": st.integers(0, 2),
        "device": st.sampled_from(["cpu", "cuda:1", "cuda:", "mps"]),
        "url": st.sampled_from([None, "http://h:1", "https://h/v1", "HTTP://h/a@b", "h", "http://a@h"]),
        "options": st.dictionaries(names, st.none() | st.integers() | st.booleans() | st.lists(names, max_size=2)),
        "params_exponent": st.sampled_from([-5, -4, 0.5, 1]),
    },
)
model = st.fixed_dictionaries(
    {"name": names, "kind": st.sampled_from(["hf", "simulated", "ollama"])},
    optional={"params_millions": st.sampled_from([None, 0, 1, 2.5]), "backends": st.lists(names, max_size=2)},
)
BASE: dict[str, list[Any]] = {
    "scenarios": ["micro"],
    "backends": [{"name": kind, "kind": kind} for kind in ("hf", "simulated", "ollama")],
    "models": [{"name": "m", "kind": "simulated"}],
}
study = st.one_of(
    st.tuples(st.just("scenarios"), scenario),
    st.tuples(st.just("backends"), backend | st.sampled_from(["hf_cpu_fp32", "nowhere"])),
    st.tuples(st.just("models"), model | st.sampled_from(["gemma3:270m", "nowhere"])),
).map(lambda one: {"run_name": "x", **BASE, one[0]: [*BASE[one[0]], one[1]]}) | st.fixed_dictionaries(
    {"run_name": names, **{key: st.just(value) for key, value in BASE.items()}},
    optional={
        "gen_tokens": st.integers(0, 3),
        "axes": st.fixed_dictionaries({}, optional={"gen_tokens": st.none() | st.lists(st.integers(0, 2), max_size=2)}),
        "gen_tokens_list": st.lists(st.integers(0, 2), max_size=2),
    },
)


def test_what_the_reader_takes_the_schema_takes_too(tmp_path: Path) -> None:
    taken = refused = 0

    @settings(max_examples=250, deadline=None)
    @given(study)
    def compare(data: dict[str, Any]) -> None:
        nonlocal taken, refused
        if is_read(data, tmp_path):
            taken += 1
            VALIDATOR.validate(data)
        else:
            refused += 1

    compare()
    assert taken > 25 and refused > 25, "the comparison would say nothing"
