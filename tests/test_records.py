"""Records survive the journal: what is written is what is read."""

import dataclasses
import json
from typing import Any

import pytest

from phaselaw.records import (
    Call,
    Cell,
    EngineInfo,
    ModelInfo,
    ModelLoaded,
    Rewarmed,
    Timing,
    from_jsonable,
    to_jsonable,
)

CELL = Cell(backend="b", backend_kind="hf", model="models/m", scenario="s", batch_size=2, gen_tokens=8)
TIMING = Timing(
    prefill_ms=0.1 + 0.2,
    kv_decode_ms=1e-9,
    prompt_tokens=3,
    prompt_tokens_total=6,
    gen_tokens_raw=8,
    decode_steps_ms=(0.1, 0.2),
    server={"eval_count": 8, "note": None},
)
CALL = Call(
    call_id="x-r0",
    call_idx=3,
    cell=CELL,
    task_idx=1,
    is_warmup=False,
    warmup_idx=None,
    rep=0,
    status="ok",
    error=None,
    started_at_unix=1764000000.123456,
    process_idx=0,
    calls_since_process_start=3,
    calls_since_model_load=2,
    calls_since_shape_first_seen=1,
    load_ms=None,
    timing=TIMING,
)
RECORDS = [
    CALL,
    dataclasses.replace(CALL, status="error", error="engine: no\u2028\U0001f4a5", timing=None),
    Rewarmed(cell_key=CELL.key, process_idx=1, calls=2, error=None),
    ModelLoaded(
        backend="b",
        model="m",
        process_idx=0,
        load_ms=12.5,
        info=ModelInfo(params_millions_measured=0.102714, n_layer=2),
        engine=EngineInfo(kind="hf", name="b", version="5", settings={"threads": 2, "names": ["a", "b"]}),
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_from_json_as_it_was(record: Any) -> None:
    assert from_jsonable(type(record), json.loads(json.dumps(to_jsonable(record)))) == record


def test_what_a_newer_version_adds_is_ignored() -> None:
    written = to_jsonable(CALL) | {"color": "blue"}
    written["timing"] |= {"taste": "sweet"}
    assert from_jsonable(Call, written) == CALL


def test_what_an_older_version_left_out_has_its_default() -> None:
    written = to_jsonable(CALL)
    del written["timing"]["server"]
    del written["timing"]["done_reason"]
    assert from_jsonable(Call, written) == dataclasses.replace(CALL, timing=dataclasses.replace(TIMING, server={}))


def test_a_record_without_a_needed_key_is_refused() -> None:
    written = to_jsonable(CALL)
    del written["call_id"]
    with pytest.raises(ValueError, match="call_id: Field required"):
        from_jsonable(Call, written)


def test_cells_that_differ_in_any_part_have_keys_of_their_own() -> None:
    others = {"backend": "c", "model": "n", "scenario": "t", "batch_size": 3, "gen_tokens": 9}
    keys = {dataclasses.replace(CELL, **{name: value}).key for name, value in others.items()}
    assert len(keys | {CELL.key}) == 6


def test_a_record_can_not_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CALL.call_idx = 4  # type: ignore[misc]
