"""Where two runs differ: one line a key, and one for a whole entry that only one of them has."""

from phaselaw.rundir.conditions import differences


def manifest(*models: str, gen_tokens: int = 64) -> dict[str, object]:
    entries = [{"name": name, "kind": "hf", "n_layer": 6} for name in models]
    return {"study": {"gen_tokens": gen_tokens, "models": entries}}


def test_runs_of_one_study_differ_in_nothing() -> None:
    assert differences(manifest("a", "b"), manifest("b", "a")) == []


def test_a_key_that_differs_is_told_with_both_values() -> None:
    assert differences(manifest("a"), manifest("a", gen_tokens=8)) == ["study gen_tokens: 64 and 8"]


def test_a_model_that_only_one_study_has_is_one_line() -> None:
    found = differences(manifest("a", "b"), manifest("a", "c"))
    assert found == ["study models[b]: only in the first", "study models[c]: only in the other"]


def test_an_older_manifest_without_a_resolved_study_is_held_against_what_both_say() -> None:
    older = {"gen_tokens": 64, "repetitions": 3}
    ours = {"study": {"gen_tokens": 64, "repetitions": 3, "order": "rounds", "models": [{"name": "m"}]}}
    assert differences(older, ours) == differences(ours, older) == []
    assert differences(older | {"gen_tokens": 32}, ours) == ["study gen_tokens: 32 and 64"]
