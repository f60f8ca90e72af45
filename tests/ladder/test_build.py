"""Models are built once, whole or not at all, and found by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from phaselaw.errors import NotReadyError, UsageError
from phaselaw.ladder import build as building
from phaselaw.ladder.build import RECORD, Checksum, build, cache_directory, faults, resolve, shipped_checksums
from phaselaw.ladder.spec import LADDER

TINY = LADDER[0]


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.endswith(".lock")}


def test_a_model_is_built_with_its_record_and_nothing_else_left_behind(tmp_path: Path) -> None:
    assert build(["tiny-gpt2"], tmp_path) == [tmp_path / "tiny-gpt2"]
    assert names_in(tmp_path) == {"tiny-gpt2"}
    assert names_in(tmp_path / "tiny-gpt2") == {*shipped_checksums()["tiny-gpt2"], RECORD}
    assert faults(TINY, tmp_path / "tiny-gpt2", every_byte=True) == []


def test_a_model_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    build(["tiny-gpt2"], tmp_path)
    before = (tmp_path / "tiny-gpt2" / "model.safetensors").stat()
    build(["models/tiny-gpt2"], tmp_path)
    after = (tmp_path / "tiny-gpt2" / "model.safetensors").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_damaged_model_is_built_anew(tmp_path: Path) -> None:
    build(["tiny-gpt2"], tmp_path)
    (tmp_path / "tiny-gpt2" / "config.json").write_text("{}")
    build(["tiny-gpt2"], tmp_path)
    assert faults(TINY, tmp_path / "tiny-gpt2", every_byte=True) == []
    assert names_in(tmp_path) == {"tiny-gpt2"}


def test_a_folder_that_we_did_not_build_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "tiny-gpt2" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(NotReadyError, match="did not build"):
        build(["tiny-gpt2"], tmp_path)
    assert mine.read_text() == "mine"
    assert names_in(tmp_path) == {"tiny-gpt2"}


def test_a_build_that_comes_out_otherwise_than_shipped_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"tiny-gpt2": shipped_checksums()["tiny-gpt2"] | {"model.safetensors": Checksum(413464, "0" * 64)}}
    monkeypatch.setattr(building, "shipped_checksums", lambda: wrong)
    with pytest.raises(NotReadyError, match=r"model\.safetensors came out otherwise than shipped"):
        build(["tiny-gpt2"], tmp_path)
    assert names_in(tmp_path) == set()


def test_what_a_killed_build_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".tiny-gpt2.new").mkdir()
    (tmp_path / ".tiny-gpt2.new" / "config.json").write_text("half")
    build(["tiny-gpt2"], tmp_path)
    assert names_in(tmp_path) == {"tiny-gpt2"}


def test_processes_that_build_the_same_model_at_once_all_end_with_it_whole(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom phaselaw.ladder.build import build\n"
        "build(['gpt2-5m'], Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    racing = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    assert [(process.wait(), process.communicate()[1]) for process in racing] == [(0, b"")] * 3
    assert faults(LADDER[1], tmp_path / "gpt2-5m", every_byte=True) == []
    assert names_in(tmp_path) == {"gpt2-5m"}


def test_progress_grows_to_the_total(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    build(["tiny-gpt2"], tmp_path, lambda *event: told.append(event))
    total = sum(entry.bytes for entry in shipped_checksums()["tiny-gpt2"].values())
    done = [event[1] for event in told]
    assert done == sorted(done)
    assert told[-1] == ("tiny-gpt2", total, total)


def test_an_unknown_model_is_a_usage_error_that_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no model 'gpt3'; it has: tiny-gpt2, .*gpt2-100m"):
        build(["gpt3"], tmp_path)


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotReadyError, match=r"can't build tiny-gpt2 in .*file"):
        build(["tiny-gpt2"], tmp_path / "file")


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASELAW_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path / "ladder"
    monkeypatch.delenv("PHASELAW_CACHE")
    assert cache_directory().name == "ladder"
    assert tmp_path not in cache_directory().parents


def test_a_ladder_name_resolves_to_its_folder_and_is_built_when_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHASELAW_CACHE", str(tmp_path))
    directory = resolve("models/tiny-gpt2")
    assert directory == resolve("tiny-gpt2") == tmp_path / "ladder" / "tiny-gpt2"
    assert faults(TINY, directory, every_byte=True) == []


def test_a_folder_resolves_to_itself_and_any_other_name_is_left_for_the_hub_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny-gpt2").mkdir()
    assert resolve(str(tmp_path)) == tmp_path
    assert resolve("tiny-gpt2") == Path("tiny-gpt2")
    assert resolve("org/model") == "org/model"


def test_a_poisoned_cache_is_made_anew_before_a_run_states_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHASELAW_CACHE", str(tmp_path))
    [folder] = build(["tiny-gpt2"])
    weights = folder / "model.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-2000] + bytes(2000))
    assert resolve("models/tiny-gpt2") == folder
    assert weights.read_bytes() != sound
    resolve("models/tiny-gpt2", every_byte=True)
    assert weights.read_bytes() == sound
