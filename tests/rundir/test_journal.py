"""A journal that is damaged, attacked, or holds what no table can: found, named, and the rest of it kept."""

import csv
import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import polars as pl
import pytest
from journals import create, edit, fill, finished_run, resume

from phaselaw import api
from phaselaw.errors import PhaselawError, RunError
from phaselaw.files import raw_text
from phaselaw.records import Call, from_jsonable
from phaselaw.rundir import read as runs
from phaselaw.rundir.derive import derived, faults, sealed
from phaselaw.rundir.journal import JOURNAL, read_journal, scan_journal
from phaselaw.rundir.write import salvage, write_derived


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(tmp_path: Path, finished: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def flipped(path: Path, at: int, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << bit
    path.write_bytes(raw)


def lines(run: Path) -> list[bytes]:
    return (run / JOURNAL).read_bytes().split(b"\n")[:-1]


# --- checksums ---


@pytest.mark.parametrize("name", [JOURNAL, "metrics.csv", "manifest.json", "resolved_model_params.csv"])
def test_no_flipped_bit_changes_a_figure_without_a_word(run: Path, name: str) -> None:
    draw = random.Random(7)
    kept, rows = (run / name).read_bytes(), runs.load(run).rows
    models = runs.load(run).models
    for _ in range(25):
        flipped(run / name, draw.randrange(len(kept)), draw.randrange(8))
        try:
            now = runs.load(run)
        except PhaselawError:
            pass
        else:
            assert now.rows.equals(rows)
            assert now.models.equals(models)
        # A torn tail alone is no damage: a kill makes one.
        assert list(faults(run)) or not (run / JOURNAL).read_bytes().endswith(b"\n") or name == "manifest.json"
        (run / name).write_bytes(kept)
    assert list(faults(run)) == []


def test_a_line_that_was_changed_is_named(run: Path) -> None:
    number = next(at for at, line in enumerate(lines(run), start=1) if b'"prefill_ms":' in line)
    raw = (run / JOURNAL).read_bytes()
    (run / JOURNAL).write_bytes(raw.replace(b'"prefill_ms":', b'"prefill_ms":9', 1))
    assert list(faults(run)) == [f"{JOURNAL}:{number}: damaged line: it is not what its checksum was made of"]


def test_a_line_that_was_taken_out_is_missed(run: Path) -> None:
    kept = lines(run)
    del kept[next(at for at, line in enumerate(kept) if b'"event":"call"' in line)]
    (run / JOURNAL).write_bytes(b"\n".join(kept) + b"\n")
    assert [*faults(run)] == [f"{JOURNAL}: call_idx 0 is missing: a line was taken out"]


def test_the_last_calls_of_a_complete_run_are_missed_too(run: Path) -> None:
    kept = [line for line in lines(run) if b'"call_idx":23' not in line]
    (run / JOURNAL).write_bytes(b"\n".join(kept) + b"\n")
    assert f"{JOURNAL}: 23 of 24 calls, though it ends as complete" in [*faults(run)]


def test_a_changed_table_is_refused_and_told_by_its_line(run: Path) -> None:
    raw = (run / "metrics.csv").read_text().splitlines()
    raw[3] = raw[3].replace("1", "2", 1)
    (run / "metrics.csv").write_text("\n".join(raw) + "\n")
    with pytest.raises(PhaselawError, match=r"metrics.csv: it is not as it was written; .*phaselaw show --verify"):
        runs.load(run)
    assert [*faults(run)] == ["metrics.csv: line 4 is not what the journal says"]


def test_a_run_whose_tables_another_version_wrote_with_other_columns_is_sound(run: Path) -> None:
    metrics, manifest = run / "metrics.csv", json.loads((run / "manifest.json").read_text())
    metrics.write_text("".join(line.partition(",")[2] for line in metrics.read_text().splitlines(keepends=True)))
    manifest["sha256"]["metrics.csv"] = hashlib.sha256(metrics.read_bytes()).hexdigest()
    (run / "manifest.json").write_text(json.dumps(sealed(manifest)))
    assert [*faults(run)] == []
    metrics.write_text(metrics.read_text().replace("1", "2", 1))
    assert [*faults(run)] == ["metrics.csv: line 1 is not what the journal says"]


def test_a_run_of_version_1_is_read_gone_on_with_and_said_to_have_no_checksums(run: Path) -> None:
    old = []
    for line in lines(run):
        event = json.loads(line)
        del event["crc32"]
        old.append(json.dumps(event | ({"journal_version": 1} if event["event"] == "header" else {})))
    (run / JOURNAL).write_text("\n".join(old[:-1]) + "\n")
    with resume(run) as directory:
        fill(directory)
        directory.finish("complete")
    assert not scan_journal(run / JOURNAL).has_checksums
    assert len(read_journal(run / JOURNAL).calls) == 24
    assert [*faults(run)] == []


# --- salvage ---


@pytest.mark.parametrize("of", ["header", "process", "call"])
def test_all_sound_lines_are_kept_and_what_was_lost_can_be_measured_again(run: Path, of: str) -> None:
    damaged = next(at for at, line in enumerate(lines(run)) if b'"event":"%s"' % of.encode() in line)
    kept = lines(run)
    kept[damaged] = kept[damaged].replace(b"e", b"\r", 3)
    (run / JOURNAL).write_bytes(b"\n".join(kept) + b"\n")
    before = (run / JOURNAL).read_bytes()
    with pytest.raises(RunError, match=rf"{JOURNAL}:{damaged + 1}: damaged line.*--salvage"):
        read_journal(run / JOURNAL)
    assert salvage(run) == 1
    lost = of == "call"
    assert len(read_journal(run / JOURNAL).calls) == 24 - lost
    assert (run / f"{JOURNAL}.damaged").read_bytes() == before
    assert runs.load(run).unfinished == (f"{run}: {24 - lost} of 24 calls, interrupted",)
    with resume(run) as directory:
        fill(directory)
        directory.finish("complete")
    assert [*faults(run)] == []
    assert len(read_journal(run / JOURNAL).calls) == 24


# --- what no table can hold ---


def test_a_call_with_figures_that_are_none_is_an_error_row_and_all_others_are_read(run: Path) -> None:
    first = next(line for line in lines(run) if b'"status":"ok"' in line)
    prefill = json.loads(first)["timing"]["prefill_ms"]
    edit(run / JOURNAL, f'"prefill_ms":{prefill!r}', f'"prefill_ms":1{"0" * 400}')
    (run / "manifest.json").unlink()
    rows = runs.load(run).rows
    odd = rows.filter(pl.col("error").str.starts_with("unreadable:").fill_null(False))
    assert (rows.height, odd.height) == (72, 3)
    with resume(run, retry_failed=True) as directory:
        fill(directory)
        directory.finish("complete")
    assert not any((call.error or "").startswith("unreadable") for call in read_journal(run / JOURNAL).calls)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt_tokens", "12"),
        ("prompt_tokens", 1.5),
        ("prompt_tokens", 10**400),
        ("prefill_ms", "x"),
        ("prefill_ms", True),
        ("kv_decode_ms", [1]),
        ("decode_steps_ms", [1.0, "x"]),
        ("server", {"a": {}}),
    ],
)
def test_a_record_takes_no_value_that_is_not_of_its_fields_type(finished: Path, field: str, value: object) -> None:
    event = next(json.loads(line) for line in lines(finished) if b'"status":"ok"' in line)
    assert isinstance(from_jsonable(Call, event), Call)
    event["timing"][field] = value
    with pytest.raises(ValueError, match=r"timing\.\w+(\.\w)?: Input should be"):
        from_jsonable(Call, event)


def test_a_number_that_was_written_without_a_fraction_is_derived_so(run: Path) -> None:
    first = json.loads(next(line for line in lines(run) if b'"status":"ok"' in line))
    edit(run / JOURNAL, f'"prefill_ms":{first["timing"]["prefill_ms"]!r}', '"prefill_ms":12')
    rows = derived(run, read_journal(run / JOURNAL)).tables["metrics.csv"].decode().splitlines()
    told = [row["prefill_ms"] for row in csv.DictReader(rows) if row["call_id"] == first["call_id"]]
    assert "12" in told and "12.0" not in told


def test_a_text_that_is_no_utf_8_is_read_and_derived_as_it_is_written_into_tables(run: Path) -> None:
    failed = next(call for call in read_journal(run / JOURNAL).calls if call.status == "error")
    edit(run / JOURNAL, json.dumps(failed.error), json.dumps("load: /models/\udcff \U0001f4a5"))
    written = raw_text("load: /models/\udcff \U0001f4a5").decode()
    write_derived(run)
    assert [*faults(run)] == []
    assert written in {call.error for call in read_journal(run / JOURNAL).calls}
    for derived_anew in (False, True):
        rows = runs.load(run).rows
        assert (rows.height, written in set(rows["error"])) == (72, True), derived_anew
        (run / "manifest.json").unlink(missing_ok=True)


# --- an unfinished run says so ---


def test_a_killed_run_is_read_from_its_journal_and_says_how_far_it_came(tmp_path: Path) -> None:
    with create(tmp_path / "run") as directory:
        fill(directory, at_most=8)
        directory.finish("interrupted")
    shutil.copytree(tmp_path / "run", tmp_path / "killed")
    with resume(tmp_path / "run") as directory:
        fill(directory, at_most=6)
        going_on = runs.load(tmp_path / "run")
        for name in (JOURNAL, "manifest.json"):  # what a kill -9 leaves here: the journal, and tables of before
            shutil.copy(tmp_path / "run" / name, tmp_path / "killed" / name)
    assert (going_on.rows.height, going_on.unfinished) == (42, (f"{tmp_path / 'run'}: 14 of 24 calls, going on",))
    loaded = api.load(tmp_path / "killed")
    assert (loaded.rows.height, loaded.models.height) == (42, 4)
    assert loaded.run.notes[0] == f"{tmp_path / 'killed'}: 14 of 24 calls, interrupted"
    assert api.report(loaded)[0].front.notices[0] == f"UNFINISHED: {loaded.run.notes[0]}."


# --- one writer, in this folder ---


def test_without_its_lock_file_and_under_another_name_a_journal_has_one_writer(tmp_path: Path) -> None:
    with create(tmp_path / "run") as directory:
        for left in (tmp_path / "run").glob(".*"):
            left.unlink()
        (tmp_path / "other").mkdir()
        os.link(tmp_path / "run" / JOURNAL, tmp_path / "other" / JOURNAL)
        with pytest.raises(RunError, match="is being written by another"):
            resume(tmp_path / "other")
        fill(directory)
        directory.finish("complete")
    assert [*faults(tmp_path / "run")] == []


@pytest.mark.parametrize("what", ["removed", "replaced", "appended to"])
def test_a_journal_that_is_no_longer_this_runs_is_told_at_the_next_call(tmp_path: Path, what: str) -> None:
    with create(tmp_path / "run") as directory, pytest.raises(RunError, match="was removed or replaced while"):
        fill(directory, at_most=2)
        kept = (tmp_path / "run" / JOURNAL).read_bytes()
        if what == "removed":
            shutil.rmtree(tmp_path / "run")
        elif what == "replaced":
            (tmp_path / "run" / JOURNAL).unlink()
            (tmp_path / "run" / JOURNAL).write_bytes(kept)
        else:
            with (tmp_path / "run" / JOURNAL).open("ab") as file:
                file.write(b"{}\n")
        fill(directory, at_most=1)


def test_a_journal_that_is_a_link_or_a_pipe_is_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / JOURNAL).symlink_to(victim)
    with pytest.raises(RunError, match="can't be written"):
        create(tmp_path / "run")
    assert victim.read_text() == "mine"
    (tmp_path / "run" / JOURNAL).unlink()
    os.mkfifo(tmp_path / "run" / JOURNAL)
    with pytest.raises(RunError):
        create(tmp_path / "run")
