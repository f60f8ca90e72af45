"""``phaselaw run``: its exit code, its folder, what it says; what is of processes and signals, in real ones."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from in_process import phaselaw
from journals import edit

from phaselaw.measure.order import schedule
from phaselaw.rundir.journal import JOURNAL, read_journal
from phaselaw.study.file import load_study

PHASELAW = (sys.executable, "-m", "phaselaw")

SLOW = """\
run_name: slow
gen_tokens: 4
repetitions: 1
warmup_repetitions: 1
scenarios: [{name: a, prompt_tokens: 1}, {name: b, prompt_tokens: 9}]
backends: [{name: sim, kind: simulated, overhead_ms: 60, params_ms: 0.1, real_time: true}]
models: [{name: m1, kind: simulated, params_millions: 1}, {name: m2, kind: simulated, params_millions: 9}]
"""
"""8 calls of about 0.3 s each."""

QUICK = SLOW.replace("real_time: true", "real_time: false").replace("slow", "quick").replace("ns: 1", "ns: 3", 1)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's plots are of no interest here, and half of its time: `dry`, a process of its own, has them."""
    monkeypatch.setattr("phaselaw.api.draw", lambda _: "")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def manifest(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())


def kept(run: Path) -> list[str]:
    """Ids of the calls that the journal holds, in order; none before there is one."""
    path = run / JOURNAL
    return [call.call_id for call in read_journal(path).calls] if path.exists() else []


def planned(study: Path) -> list[str]:
    return [call.call_id for call in schedule(load_study(str(study)))]


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line a refused command says, on stderr alone."""
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("phaselaw: error: ")
    return done.stderr


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "slow.yaml"
    path.write_text(SLOW)
    return path


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The default study's dry run: where it is, and how it went."""
    run = tmp_path_factory.mktemp("dry") / "run"
    secrets = {"HF_TOKEN": "hf_kx0123456789", "OPENAI_API_KEY": "sk-kx0123456789"}
    command = [*PHASELAW, "run", "--dry-run", "--out", str(run)]
    return run, subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **secrets})


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a small study; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("quick")
    (folder / "quick.yaml").write_text(QUICK)
    assert phaselaw("run", folder / "quick.yaml", "--out", folder / "run").returncode == 0
    return folder / "run"


@pytest.fixture
def finished(quick: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(quick, tmp_path / "finished"))


class Running:
    """A run under way in a process of its own, killed at the end if it still lives."""

    def __init__(self, study: Path, run: Path) -> None:
        self.run = run
        self.process = subprocess.Popen(
            [*PHASELAW, "run", str(study), "--out", str(run)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def after(self, calls: int) -> None:
        """Wait until so many calls are kept."""
        deadline = time.monotonic() + 60
        while len(kept(self.run)) < calls:
            assert self.process.poll() is None, "the run ended before it was to be disturbed"
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """The exit code, and what was said on stderr."""
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


# --- a whole run ---


def test_a_dry_run_of_the_default_study_is_378_rows_all_ok_by_three_processes(dry: tuple[Path, Any]) -> None:
    run, done = dry
    assert done.returncode == 0, done.stderr
    assert len(rows(run)) == 7 * 3 * 3 * (1 + 1) * 3 == 378
    assert {row["status"] for row in rows(run)} == {"ok"}
    cells = Counter(
        (row["model"], row["scenario"], row["mode"], row["is_warmup"], row["replicate"]) for row in rows(run)
    )
    assert len(cells) == 378
    assert {(row["replicate"], row["process_idx"]) for row in rows(run)} == {("0", "0"), ("1", "1"), ("2", "2")}


def test_the_rows_of_a_call_share_their_ids_and_end_to_end_is_exactly_the_sum(dry: tuple[Path, Any]) -> None:
    calls: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for row in rows(dry[0]):
        calls[row["call_id"]][row["mode"]] = row
    assert len(calls) == 126
    for call in calls.values():
        assert set(call) == {"prefill", "kv_decode", "e2e_kv"}
        assert len({(row["call_idx"], row["task_idx"], row["started_at_unix"]) for row in call.values()}) == 1
        latency = {mode: float(row["latency_ms"]) for mode, row in call.items()}
        assert latency["e2e_kv"] == latency["prefill"] + latency["kv_decode"]


def test_a_run_leaves_every_file_that_the_command_line_promises(dry: tuple[Path, Any]) -> None:
    run, _ = dry
    promised = (
        "manifest.json",
        "journal.jsonl",
        "metrics.csv",
        "resolved_model_params.csv",
        "hf_load_ms.csv",
        "report.md",
    )
    assert [name for name in promised if not (run / name).is_file()] == []
    assert list((run / "analysis").glob("*.csv"))
    assert list((run / "analysis" / "plots").iterdir())
    assert manifest(run)["status"] == "complete"
    assert manifest(run)["study_source"] == "gpt2-ladder-cpu"


def test_the_summary_is_on_stdout_and_says_that_nothing_was_measured_the_notes_on_stderr(dry: tuple[Path, Any]) -> None:
    _, done = dry
    assert done.stdout.startswith("SIMULATED")
    assert "126/126 calls" in done.stderr
    assert "126/126 calls" not in done.stdout


def test_no_secret_of_the_environment_reaches_the_run_or_the_screen(dry: tuple[Path, Any]) -> None:
    run, done = dry
    everything = b"".join(file.read_bytes() for file in run.rglob("*") if file.is_file())
    assert b"kx0123456789" not in everything
    assert "kx0123456789" not in done.stdout + done.stderr


def test_without_a_place_a_run_goes_into_runs_by_name_and_time(tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text(QUICK)
    assert phaselaw("run", "quick.yaml", cwd=tmp_path).returncode == 0
    [run] = (tmp_path / "runs" / "quick").iterdir()
    assert manifest(run)["run_id"] == run.name
    assert len(rows(run)) == 48


# --- failures and what is lacking ---


def test_failing_calls_are_error_rows_and_exit_3_with_the_data_kept(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(QUICK.replace("real_time: false", "failure_rate: 0.4"))
    done = phaselaw("run", tmp_path / "s.yaml", "--out", tmp_path / "run")
    failed = [row for row in rows(tmp_path / "run") if row["status"] == "error"]
    assert done.returncode == 3
    assert 0 < len(failed) < 48 == len(rows(tmp_path / "run"))
    assert {(row["error"], row["latency_ms"]) for row in failed} == {("simulated: a simulated failure", "")}
    assert f"{len(failed) // 3} calls failed" in done.stderr
    assert phaselaw("run", "--resume", tmp_path / "run").returncode == 3


LACKING = """\
run_name: lacking
gen_tokens: 4
scenarios: [{name: a, prompt_tokens: 1}]
backends: [{name: sim, kind: simulated}, {name: cpu, kind: hf}]
models: [{name: m1, kind: simulated}, {name: ./nowhere at all, kind: hf}]
"""


def test_what_this_machine_lacks_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(LACKING)
    done = phaselaw("run", tmp_path / "s.yaml", "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "nowhere at all" in one_line(done)
    assert "--available" in done.stderr
    assert not (tmp_path / "run").exists()


def test_available_skips_what_is_lacking_with_a_notice_and_lists_it_in_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(LACKING)
    done = phaselaw("run", tmp_path / "s.yaml", "--out", tmp_path / "run", "--available")
    assert done.returncode == 0, done.stderr
    [skipped] = manifest(tmp_path / "run")["skipped"]
    assert "nowhere at all" in skipped
    assert f"skipped: {skipped}" in done.stderr
    assert {row["model"] for row in rows(tmp_path / "run")} == {"m1"}
    assert manifest(tmp_path / "run")["rows_expected"] == len(rows(tmp_path / "run"))


OPTIONAL = """\
run_name: optional
gen_tokens: 4
scenarios: [{name: a, prompt_tokens: 1}]
backends:
  - {name: sim, kind: simulated}
  - {name: server, kind: ollama, url: "http://127.0.0.1:9", optional: true}
models: [{name: m1, kind: simulated}, {name: m1-there, kind: ollama, same_as: m1}]
"""


def test_an_optional_backend_is_skipped_with_a_notice_by_any_run(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(OPTIONAL)
    done = phaselaw("run", tmp_path / "s.yaml", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    [skipped] = manifest(tmp_path / "run")["skipped"]
    assert skipped.startswith("backend server: no Ollama server") and skipped.endswith("it is to have m1-there")
    assert f"skipped: {skipped}" in done.stderr
    assert {row["backend"] for row in rows(tmp_path / "run")} == {"sim"}


def test_a_ladder_model_chosen_by_its_short_name_stands_in_the_manifest_by_its_full_one(tmp_path: Path) -> None:
    chosen = ("--models", "gpt2-25m", "--set", "repetitions=1", "--dry-run")
    done = phaselaw("run", "--out", tmp_path / "run", *chosen)
    assert done.returncode == 0, done.stderr
    assert manifest(tmp_path / "run")["allow_lists"]["models"] == ["models/gpt2-25m"]


def test_the_parts_that_were_chosen_stand_in_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(QUICK)
    chosen = ("--models", "m2", "--scenarios", "b,a", "--set", "gen_tokens=6")
    assert phaselaw("run", tmp_path / "s.yaml", "--out", tmp_path / "run", *chosen).returncode == 0
    said = manifest(tmp_path / "run")
    assert said["allow_lists"] == {"backends": None, "models": ["m2"], "scenarios": ["b", "a"]}
    assert said["argv"][-2:] == ["--set", "gen_tokens=6"]
    assert {(row["model"], row["gen_tokens_target"]) for row in rows(tmp_path / "run")} == {("m2", "6")}


# --- one folder, one run, one writer ---


def test_out_onto_a_run_is_refused_and_resume_is_named(finished: Path) -> None:
    before = (finished / JOURNAL).read_bytes()
    done = phaselaw("run", "--dry-run", "--out", finished)
    assert done.returncode == 1
    assert f"--resume {finished}" in one_line(done)
    assert (finished / JOURNAL).read_bytes() == before


def test_out_onto_a_folder_without_a_journal_starts_afresh(finished: Path, study: Path) -> None:
    (finished / JOURNAL).unlink()
    study.write_text(QUICK.replace("repetitions: 3", "repetitions: 1"))
    assert phaselaw("run", study, "--out", finished).returncode == 0
    assert len(rows(finished)) == manifest(finished)["rows_present"] == 24


def test_two_processes_cant_write_one_run(study: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Running(study, run) as first:
        first.after(calls=1)
        # Stopped, it holds its lock however slow the machine is, and can't end before this process has tried.
        first.process.send_signal(signal.SIGSTOP)
        for words in (("--resume", run), (study, "--out", run)):
            done = phaselaw("run", *words)
            assert done.returncode == 1
            assert "being written by another phaselaw" in one_line(done)
        first.process.send_signal(signal.SIGCONT)


def test_resume_and_out_together_are_a_usage_error(finished: Path) -> None:
    done = phaselaw("run", "--resume", finished, "--out", finished / "b")
    assert done.returncode == 2
    assert "--out" in one_line(done)


def test_a_folder_without_a_run_cant_be_resumed(tmp_path: Path) -> None:
    done = phaselaw("run", "--resume", tmp_path)
    assert done.returncode == 1
    assert "no run to resume" in one_line(done)
    assert list(tmp_path.iterdir()) == []


# --- stopping and going on ---


def test_ctrl_c_ends_after_the_current_call_and_resume_goes_on_in_the_same_order(study: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Running(study, run) as first:
        first.after(calls=3)
        time.sleep(0.1)  # into the fourth
        first.interrupt()
        code, said = first.end()
    assert code == 130
    assert f"--resume {run}" in " ".join(said.split())
    assert kept(run) == planned(study)[:4]
    assert (manifest(run)["status"], manifest(run)["rows_present"]) == ("interrupted", 12)
    assert len(rows(run)) == 12
    assert phaselaw("run", "--resume", run).returncode == 0
    assert kept(run) == planned(study)
    assert [row["process_idx"] for row in rows(run)] == ["0"] * 12 + ["1"] * 12
    assert (manifest(run)["status"], manifest(run)["rows_present"]) == ("complete", 24)
    assert (run / "report.md").is_file()


def test_a_second_ctrl_c_ends_at_once_and_keeps_what_was_measured(study: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    study.write_text(SLOW.replace("overhead_ms: 60", "overhead_ms: 6000"))
    with Running(study, run) as first:
        first.after(calls=0)
        while not (run / JOURNAL).exists() or b'"event":"model"' not in (run / JOURNAL).read_bytes():
            time.sleep(0.01)
        begun = time.monotonic()
        first.interrupt()
        time.sleep(0.3)
        first.interrupt()
        code, _ = first.end()
    assert code == 130
    assert time.monotonic() - begun < 10 < 6 * 5.2
    assert (manifest(run)["status"], kept(run), rows(run)) == ("interrupted", [], [])


def test_a_finished_run_is_left_as_it_is_and_exits_0(finished: Path) -> None:
    def measured() -> dict[str, bytes]:
        # Not the report: it names its folder, and this run was copied.
        return {path.name: path.read_bytes() for path in finished.glob("[!r]*.*")}

    before = measured()
    assert {JOURNAL, "metrics.csv", "manifest.json"} <= set(before)
    done = phaselaw("run", "--resume", finished)
    assert done.returncode == 0
    assert "nothing to measure" in done.stderr
    assert measured() == before


def test_a_run_killed_before_its_tables_has_them_after_a_resume(finished: Path) -> None:
    wanted = (finished / "metrics.csv").read_bytes()
    for name in ("metrics.csv", "manifest.json", "report.md"):
        (finished / name).unlink()
    assert phaselaw("run", "--resume", finished).returncode == 0
    assert (finished / "metrics.csv").read_bytes() == wanted
    assert (finished / "report.md").is_file()


def test_a_changed_study_is_refused_unless_allowed_and_then_both_are_recorded(finished: Path, study: Path) -> None:
    study.write_text(QUICK.replace("repetitions: 3", "repetitions: 4"))
    refused = phaselaw("run", study, "--resume", finished)
    assert refused.returncode == 1
    assert "study: " in one_line(refused)
    assert "--allow-changed" in refused.stderr
    assert len(kept(finished)) == 16
    assert phaselaw("run", study, "--resume", finished, "--allow-changed").returncode == 0
    said = manifest(finished)
    assert len(kept(finished)) == 20 == len(set(kept(finished)))
    assert [process["study"]["repetitions"] for process in said["processes"]] == [3, 4]


def test_a_changed_host_is_refused_unless_allowed_and_then_both_are_recorded(finished: Path) -> None:
    journal = finished / JOURNAL
    here = manifest(finished)["host"]["cpu_model"]
    edit(journal, json.dumps(here), '"another processor"')
    refused = phaselaw("run", "--resume", finished)
    assert refused.returncode == 1
    assert "cpu_model: 'another processor' became" in one_line(refused)
    assert phaselaw("run", "--resume", finished, "--allow-changed").returncode == 0
    said = [process["host"]["cpu_model"] for process in manifest(finished)["processes"]]
    assert said == ["another processor", here]


def test_a_dry_run_says_how_many_of_a_studys_calls_it_makes_where_a_server_is_one_client(tmp_path: Path) -> None:
    study = tmp_path / "served.yaml"
    study.write_text(
        "gen_tokens: 4\nrepetitions: 1\nwarmup_repetitions: 0\nscenarios: [{name: short, prompt_tokens: 9}]\n"
        "backends: [{name: box, kind: openai, url: 'http://127.0.0.1:9/v1', concurrency: [1, 4]}]\n"
        "models: [{name: org/m, kind: openai}]\n"
    )
    done = phaselaw("run", study, "--dry-run", "--out", tmp_path / "run")
    assert "a server is simulated as one client: 1 of the study's 5 calls" in done.stderr
