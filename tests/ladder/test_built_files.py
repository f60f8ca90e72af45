"""What a built model's files are is pinned, and what is wrong with them is found."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from phaselaw.ladder.build import RECORD, WEIGHTS, Checksum, faults, model_files, shipped_checksums
from phaselaw.ladder.spec import LADDER

TINY = LADDER[0]


@pytest.fixture
def built(ladder_cache: Path, tmp_path: Path) -> Path:
    """A copy of a built model, to damage."""
    return Path(shutil.copytree(ladder_cache / TINY.name, tmp_path / TINY.name))


@pytest.mark.parametrize("model", LADDER, ids=lambda model: model.name)
def test_every_file_comes_out_with_the_shipped_size_and_sha256(model) -> None:
    written = {name: b"".join(chunks) for name, chunks in model_files(model).items()}
    made = {name: Checksum(len(data), sha256(data).hexdigest()) for name, data in written.items()}
    assert made == shipped_checksums()[model.name]


def test_the_shipped_table_covers_the_ladder_and_nothing_else() -> None:
    assert list(shipped_checksums()) == [model.name for model in LADDER]


def test_a_config_states_what_transformers_and_the_gguf_converter_ask_for() -> None:
    config = json.loads(b"".join(model_files(TINY)["config.json"]))
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert config["n_ctx"] == config["n_positions"] == 1024
    assert (config["n_layer"], config["n_embd"], config["n_head"], config["n_inner"]) == (2, 2, 2, None)


def test_a_whole_model_has_no_faults(built: Path) -> None:
    assert faults(TINY, built, every_byte=True) == []


def test_a_model_that_is_not_there_is_not_built(tmp_path: Path) -> None:
    assert faults(TINY, tmp_path / "none", every_byte=False) == ["not built"]


def test_a_missing_file_and_a_cut_one_are_found_by_their_size_alone(built: Path) -> None:
    (built / "config.json").unlink()
    weights = built / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-4])
    found = faults(TINY, built, every_byte=False)
    assert found[0] == "config.json is missing"
    assert found[1].startswith(f"{WEIGHTS} has 413460 bytes, not 413464")


def test_one_wrong_bit_is_found_only_by_reading_every_byte(built: Path) -> None:
    weights = built / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert faults(TINY, built, every_byte=False) == []
    assert faults(TINY, built, every_byte=True) == [f"{WEIGHTS} is damaged: its SHA-256 is not the shipped one"]


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"config.json": 1}', "\x00"])
def test_a_record_of_another_version_or_a_broken_one_is_found(built: Path, record: str) -> None:
    (built / RECORD).write_text(record)
    assert faults(TINY, built, every_byte=False) == [f"{RECORD} is missing or is not this version's"]
