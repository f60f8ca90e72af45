"""A run over many hosts: who measures what, and, where ray is installed, that a cluster of three nodes does it."""

import csv
import dataclasses
import importlib.util
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import types
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from journals import create, resume, study

from phaselaw.engines import module_for
from phaselaw.errors import RunError, UsageError
from phaselaw.measure.begin import Lack
from phaselaw.measure.calls import measure
from phaselaw.measure.on_ray import Host, Hosts, Work, too_small_for
from phaselaw.measure.order import schedule
from phaselaw.records import Call
from phaselaw.rundir.derive import faults
from phaselaw.rundir.journal import JOURNAL, read_journal
from phaselaw.study.file import load_study
from phaselaw.study.model import Study

# --- who measures what ---


def host(name: str, *lacking: str, cpu: str = "C") -> Host:
    """A host that lacks some backends."""
    lacks = [Lack(backend=backend, model=None, what=f"no {backend}") for backend in lacking]
    return Host(name=name, actor=None, facts={"name": name, "cpu_model": cpu}, lacking=lacks)


def work(path: Path, *hosts: Host, replicates: int = 2) -> Work:
    return Work(create(path, study(replicates=replicates)), hosts)


def kept(made: Work, of: Host, calls: int) -> int:
    """Have a host begin what it is to measure, and keep so many of its calls; the number of its process."""
    which = made.begin(of, made.shares_for(of))
    asked = made.directory.study
    engines = {
        each.name: module_for(each.kind).create(each) for each in asked.backends if each.name in which["backends"]
    }
    events = measure(asked, engines=engines, **{key: which[key] for key in ("done", "replicate", "process_idx")})
    for event in itertools.islice((each for each in events if isinstance(each, Call)), calls):
        made.keep(event)
    return int(which["process_idx"])


def test_each_host_takes_the_first_replicate_that_nobody_has(tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    made = work(tmp_path / "run", a, b)
    assert made.shares_for(a) == [(0, "one"), (0, "two")]
    made.begin(a, made.shares_for(a))
    assert made.shares_for(b) == [(1, "one"), (1, "two")]
    made.begin(b, made.shares_for(b))
    assert made.shares_for(a) == []


def test_backends_go_to_the_hosts_that_have_what_they_need(tmp_path: Path) -> None:
    a, b = host("a", "two"), host("b")
    made = work(tmp_path / "run", a, b, replicates=1)
    assert made.shares_for(a) == [(0, "one")]
    assert made.shares_for(b) == [(0, "one")]
    made.begin(a, made.shares_for(a))
    assert made.shares_for(b) == [(0, "two")]


def test_a_backend_goes_to_the_hosts_with_memory_for_its_weights_or_to_any_where_none_has(tmp_path: Path) -> None:
    small, large = host("small"), host("large")
    small = dataclasses.replace(small, facts={**small.facts, "too_small_for": ["two"]})
    made = work(tmp_path / "run", small, large, replicates=1)
    assert made.shares_for(small) == [(0, "one")]
    made.begin(small, made.shares_for(small))
    assert made.shares_for(large) == [(0, "two")]
    assert work(tmp_path / "alone", small, replicates=1).shares_for(small) == [(0, "one"), (0, "two")]


def test_weights_are_held_against_the_memory_of_the_device_that_they_are_for() -> None:
    backends = [{"name": "cpu", "kind": "hf", "dtype": "fp32"}, {"name": "gpu", "kind": "hf", "device": "cuda:1"}]
    asked = Study.model_validate(
        study().resolved() | {"backends": backends, "models": [{"name": "models/gpt2-25m", "kind": "hf"}]}
    )
    gpus = [{"name": "A", "memory": "24576 MiB"}, {"name": "B", "memory": "10 MiB"}]
    assert too_small_for(asked, {"memory_bytes": 90e6, "gpus": gpus}) == ["cpu", "gpu"]
    assert too_small_for(asked, {"memory_bytes": 16e9, "gpus": gpus[:1]}) == []


def test_what_no_host_can_run_is_refused_with_how_to_go_on(tmp_path: Path) -> None:
    made = work(tmp_path / "run", host("a", "two"), replicates=1)
    made.begin(made.alive["a"], made.shares_for(made.alive["a"]))
    with pytest.raises(
        RunError, match="replicate 0 of two needs a host that can run it; none is left; go on with --resume"
    ):
        made.refuse_rest()


def test_the_replicate_of_a_lost_host_is_measured_anew_whole_on_a_host_of_its_kind(tmp_path: Path) -> None:
    a, b, other = host("a"), host("b"), host("c", cpu="D")
    made = work(tmp_path / "run", a, b, other, replicates=1)
    shares = made.shares_for(a)
    process = kept(made, a, 3)
    event = made.lost(a, shares, process, ValueError("no answer"))
    assert (event.processes, event.why) == ((process,), "a was lost (no answer)")
    assert made.directory.calls == [] and list(made.alive) == ["b", "c"]
    assert made.shares_for(other) == []
    assert made.shares_for(b) == shares


def test_without_a_host_of_that_kind_the_run_ends_and_can_be_gone_on_with(tmp_path: Path) -> None:
    a, other = host("a"), host("c", cpu="D")
    made = work(tmp_path / "run", a, other, replicates=1)
    shares = made.shares_for(a)
    made.lost(a, shares, kept(made, a, 3), ValueError())
    with pytest.raises(RunError, match="of the kind that it was begun on; none is left; go on with --resume"):
        made.refuse_rest()


def test_what_a_host_refuses_ends_the_run_as_on_one_machine(tmp_path: Path) -> None:
    made = work(tmp_path / "run", host("a"))
    refused = types.SimpleNamespace(cause=RunError("backend there: no address; give its url"))
    with pytest.raises(RunError, match=r"^a: backend there: no address; give its url$"):
        made.lost(made.alive["a"], [], 1, refused)


def test_a_replicate_that_was_begun_goes_on_where_it_was_begun_or_is_measured_anew(tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    process = kept(work(tmp_path / "run", a, b), b, 3)
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "run" / JOURNAL, tmp_path / "copy")
    again = Work(resume(tmp_path / "copy"), (a, b))
    assert again.leave_gone_hosts() == []
    assert again.shares_for(a)[0] == (1, "one")
    assert again.shares_for(b) == [(0, "one"), (0, "two")]
    without = Work(again.directory, (a,))
    assert [event.processes for event in without.leave_gone_hosts()] == [(process,)]
    assert without.shares_for(a)[0] == (0, "one")


def test_an_address_that_is_none_is_told_before_anything_is_started() -> None:
    with pytest.raises(
        UsageError, match=r"--ray study\.yaml: give HOST:PORT, auto or nothing; the study stands before it"
    ):
        Hosts("study.yaml", label=None, share_machine=False, wait_s=None, tell=print)


# --- a cluster of three nodes ---

CLUSTER = Path(__file__).parents[1] / "support" / "ray_cluster.py"
REPLICATES = 4
STUDY = """\
run_name: hosts
gen_tokens: 4
replicates: 4
repetitions: 4
warmup_repetitions: 1
scenarios: [{name: a, prompt_tokens: 1}, {name: b, prompt_tokens: 9}]
backends: [{name: sim, kind: simulated, overhead_ms: 30, real_time: true}]
models: [{name: m1, kind: simulated}, {name: m2, kind: simulated}]
"""
KILLS = 10


def until(true: Callable[[], bool], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Cluster:
    """Nodes a, b and c, and runs on them."""

    def __init__(self, folder: Path) -> None:
        self.mark = str(uuid.uuid4())
        more = {"PHASELAW_TEST_CLUSTER": self.mark, "RAY_AUTH_TOKEN": self.mark, "TMPDIR": "/tmp"}
        self.environment = os.environ | more | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        command = [sys.executable, str(CLUSTER), "a", "b", "c"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=self.environment, text=True, **pipes)
        said = json.loads(self.process.stdout.readline())
        self.address, self.nodes = said["address"], said["nodes"]
        self.study = folder / "study.yaml"
        self.study.write_text(STUDY)

    def begun(self, run: Path) -> subprocess.Popen[str]:
        """A run begun, or gone on with."""
        goal = ["--resume", str(run)] if (run / JOURNAL).exists() else [str(self.study), "--out", str(run)]
        command = [sys.executable, "-m", "phaselaw", "run", *goal, "--ray", self.address, "--share-machine"]
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=self.environment, text=True, **pipes)

    def measuring(self) -> list[int]:
        """The processes of ours on the nodes: those that measure, and their parents."""
        found = []
        for each in psutil.process_iter(["pid", "cmdline", "environ"]):
            words = " ".join(each.info["cmdline"] or ())
            ours = "phaselaw.measure.replicates" in words or "ray::Worker" in words
            if ours and (each.info["environ"] or {}).get("PHASELAW_TEST_CLUSTER") == self.mark:
                found.append(each.info["pid"])
        return found

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    yield started
    started.end()


def calls_of(run: Path) -> int:
    return (run / JOURNAL).read_bytes().count(b'"event":"call"') if (run / JOURNAL).exists() else 0


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["mode"] == "prefill"]


def overlapping(run: Path) -> list[tuple[str, str]]:
    """Calls of one host of which one began before the other had ended."""
    found = []
    for name in {row["host"] for row in rows_of(run)}:
        spans = sorted(
            (float(row["started_at_unix"]), float(row["prefill_ms"]) + float(row["kv_decode_ms"]), row["call_id"])
            for row in rows_of(run)
            if row["host"] == name
        )
        found += [
            (one[2], two[2]) for one, two in itertools.pairwise(spans) if one[0] + one[1] / 1e3 > two[0] + CLOCK_S
        ]
    return found


CLOCK_S = 0.005
"""How exactly the start of a call is known beside its length: it is read by another clock, a moment before."""

has_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: the extra ray")


@pytest.mark.slow
@has_ray
def test_a_node_that_is_killed_costs_its_replicate_which_another_measures_anew(
    cluster: Cluster, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    begun = cluster.begun(run)
    until(
        lambda: (
            {row["host"]["name"] for row in read_journal(run / JOURNAL).processes} > {"a", "b", "c"}
            if calls_of(run) > 20
            else begun.poll() is not None
        )
    )
    os.kill(cluster.nodes["c"], signal.SIGKILL)
    _, said = begun.communicate(timeout=300)
    assert begun.returncode == 0, said
    assert "c was lost" in said
    journal = read_journal(run / JOURNAL)
    asked = load_study(str(cluster.study))
    assert sorted(call.call_id for call in journal.calls) == sorted(call.call_id for call in schedule(asked))
    assert {why[:10] for _, why in journal.abandoned} == {"c was lost"}
    counted = [row for row in rows_of(run) if row["status"] == "ok"]
    assert len(counted) == asked.calls_planned()
    assert len({(row["replicate"], row["host"]) for row in counted}) == REPLICATES, "a replicate is of one host"
    assert {row["host"] for row in counted} == {"a", "b"}
    assert {row["shared_machine"] for row in rows_of(run)} == {"True"}
    assert overlapping(run) == []
    assert list(faults(run)) == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
@has_ray
def test_ten_kills_of_the_driver_lose_nothing_but_calls_in_flight(cluster: Cluster, tmp_path: Path) -> None:
    run, draw, kept, landed = tmp_path / "run", random.Random(3), b"", Counter[str]()
    for _ in range(KILLS):
        begun, before = cluster.begun(run), calls_of(run)
        stage = draw.choice(("starting", "measuring", "measuring"))
        if stage == "measuring":
            until(lambda begun=begun, before=before: calls_of(run) > before or begun.poll() is not None)
        time.sleep(draw.random() * 0.4)
        landed[stage] += begun.poll() is None
        begun.kill()
        begun.communicate()
        until(lambda: not cluster.measuring())
        now = (run / JOURNAL).read_bytes() if (run / JOURNAL).exists() else b""
        assert now.startswith(kept), "what was on the disk is there still"
        kept = now[: now.rfind(b"\n") + 1]
    assert sum(landed.values()) == KILLS and landed["measuring"] >= 5
    begun = cluster.begun(run)
    _, said = begun.communicate(timeout=300)
    assert begun.returncode == 0, said
    journal = read_journal(run / JOURNAL)
    made = Counter(call.call_id for call in journal.calls)
    assert made == Counter(call.call_id for call in schedule(load_study(str(cluster.study))))
    assert journal.abandoned == () and overlapping(run) == []
    assert list(faults(run)) == []
    assert cluster.measuring() == []


@pytest.mark.slow
@has_ray
def test_simulations_by_ray_give_the_same_to_the_bit_as_one_process(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    few = ["--simulations", "6", "--overhead-simulations", "0", "--models", "4", "--json"]
    spec = importlib.util.spec_from_file_location("interval_coverage", script)
    coverage = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, coverage)  # dataclasses look their module up
    spec.loader.exec_module(coverage)
    coverage.main(few)
    here = capsys.readouterr().out
    command = [sys.executable, str(script), *few, "--ray", cluster.address]
    by_ray = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=False).stdout
    assert len(json.loads(here)["shares"]) > 50
    assert by_ray == here
