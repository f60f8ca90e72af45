"""What can't be shown ends no measurement, and no path is a pattern: real processes, real full and closed streams."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from journals import finished_run
from scripted_server import read_request, reply, scripted

from phaselaw.rundir import read as runs
from phaselaw.study.file import load_study

STUDY = """\
run_name: shown
gen_tokens: 4
repetitions: 3
scenarios: [{name: a, prompt_tokens: 1}]
backends: [{name: sim, kind: simulated}]
models: [{name: m, kind: simulated, params_millions: 1}]
"""


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command.replace("phaselaw", f"{sys.executable} -m phaselaw")],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("shown")
    (folder / "study.yaml").write_text(STUDY)
    finished_run(folder / "xy", load_study(str(folder / "study.yaml")))
    yield folder


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("told", ["2>/dev/full", "2> >(true)", "2>&-"], ids=["full", "pipe", "closed"])
def test_a_display_that_cant_be_written_ends_no_measurement(place: Path, told: str) -> None:
    # With a star, and a run beside it that the star would match; and a set in brackets.
    name = {"2>/dev/full": "x*", "2>&-": "a[1]"}.get(told, "b")
    done = shell(f"phaselaw run study.yaml --out '{name}' {told}", place)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"report: {name}/report.md" in done.stdout
    assert runs.load(place / name).rows.height == 12
    assert (place / name / "journal.jsonl").read_bytes().startswith(b'{"event":"header"')


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["report xy", "show xy --json"])
def test_an_answer_that_cant_be_written_is_told_in_one_line(place: Path, command: str) -> None:
    done = shell(f"phaselaw {command} >/dev/full", place)
    assert (done.returncode, done.stderr) == (1, "phaselaw: error: the output: No space left on device\n")


@pytest.mark.parametrize(("command", "code"), [("plan xy", 0), ("show torn --verify", 3)])
def test_a_reader_that_goes_away_changes_no_exit_code(place: Path, command: str, code: int) -> None:
    shutil.copytree(place / "xy", place / "torn", dirs_exist_ok=True)
    (place / "torn" / "metrics.csv").write_text("")
    done = shell(f"phaselaw {command} | true; exit ${{PIPESTATUS[0]}}", place)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)


def test_four_reports_of_one_run_at_once_all_succeed(place: Path) -> None:
    # Four processes that have their imports behind them, so that all four write at the same time.
    script = (
        "import os\nimport phaselaw.report.build\nfrom phaselaw.cli import main\n"
        "each = [os.fork() or os._exit(main(['report', 'xy'])) for _ in range(4)]\n"
        "print([os.waitpid(one, 0)[1] for one in each])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=place, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0]", done.stderr
    assert not [*place.rglob("*.partial")]


def test_names_that_are_no_utf8_are_read_and_told(place: Path) -> None:
    shutil.copytree(place / "xy", place / os.fsdecode(b"\xff\n"))
    done = shell("phaselaw report $'\\xff\\n'", place)
    assert done.returncode == 0
    assert "report: \\udcff" in done.stdout


def test_an_empty_folder_name_is_asked_for_again(place: Path) -> None:
    done = shell("phaselaw run study.yaml --out ''", place)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "a path is empty" in done.stderr and not (place / "journal.jsonl").exists()


def test_a_second_ctrl_c_ends_several_waiting_clients_at_once(tmp_path: Path) -> None:
    waiting: list[bytes] = []
    over = threading.Event()

    def script(connection: object) -> None:
        while request := read_request(connection):
            if b"GET /v1/models" in request:
                connection.sendall(reply(b'{"data": [{"id": "m"}]}'))
            elif b'"max_tokens": 2,' in request:
                connection.sendall(reply(b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n'))
            else:
                waiting.append(request)
                over.wait(30)

    with scripted(script) as url:
        (tmp_path / "study.yaml").write_text(
            "run_name: slow\nscenarios: [{name: a, prompt: Hello}]\nmodels: [{name: m, kind: openai}]\n"
            f"backends: [{{name: s, kind: openai, url: '{url}', concurrency: [4]}}]\n"
        )
        command = [sys.executable, "-m", "phaselaw", "run", "study.yaml", "--out", "run"]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while len(waiting) < 4 and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        over.set()
