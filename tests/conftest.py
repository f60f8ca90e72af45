"""What several rooms' tests share."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from phaselaw.engines import permits

if TYPE_CHECKING:
    from phaselaw.laws.analysis import Analysis

# How long an example takes is no property of what is tested: a busy machine must fail nothing. Other examples are
# drawn in each run, so that a property needs fewer in one.
settings.register_profile("phaselaw", deadline=None, max_examples=50)
settings.load_profile("phaselaw")
# The processes that tests start find the source compiled: without that each compiles it for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Workers share the processors: a thread of torch that waits for another sleeps, and leaves its processor to another
# worker's, where OpenMP's default keeps it busy with waiting (six times the processor time, and of the wait).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# The same of the small tables and matrices of an analysis: handing them from thread to thread is a quarter of its time.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ |= {"POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


# Hardly any of what imports and collection make is garbage: looking for it took a fifth of collecting.
gc.disable()


def pytest_collection_finish() -> None:
    """From here on garbage is looked for, but not among what collection made."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that all workers end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


TESTS = str(Path(__file__).parent)


def shared_state() -> dict[str, object]:
    """What all tests of a process share: the functions and classes of phaselaw's modules, and the environment."""
    found: dict[str, object] = dict(os.environ)
    for module in [module for name, module in sys.modules.items() if name.startswith("phaselaw.")]:
        found |= {f"{module.__name__}.{name}": value for name, value in vars(module).items() if callable(value)}
    return found


@pytest.fixture(scope="module", autouse=True)
def left_as_it_was_found() -> Iterator[None]:
    """What a file's tests replace is put back: what they left behind would fail others, later on in this process."""
    before = shared_state()
    yield
    after = shared_state()
    # The model cache is the whole session's.
    kept = {"PYTEST_CURRENT_TEST", "PHASELAW_CACHE"}
    changed = {name for name in before.keys() - kept if after.get(name) != before[name]}
    changed |= {name for name in after.keys() - before.keys() - kept if name.startswith("PHASELAW_")}
    # Of modules that were first imported in between.
    for name, value in after.items():
        if getattr(getattr(value, "__code__", None), "co_filename", "").startswith(TESTS):
            changed.add(name)
    assert not changed, f"these tests left {sorted(changed)} changed"


@pytest.fixture(autouse=True)
def nothing_stays_allowed() -> Iterator[None]:
    """What a command line allows (``--allow-key``, an address that was typed) is in the environment: it ends here."""
    before = {name: os.environ.get(name) for name in (permits.KEY_HOSTS, permits.TYPED_HOSTS, permits.PROGRAMS)}
    yield
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session that its workers share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def ladder_cache(of_all_workers: Path) -> Iterator[Path]:
    """A model cache with the two smallest models built: ``$PHASELAW_CACHE``, or else a fresh one."""
    from phaselaw.files import CACHE_VARIABLE
    from phaselaw.ladder.build import build, cache_directory

    with pytest.MonkeyPatch.context() as patch:
        if not os.environ.get(CACHE_VARIABLE):
            patch.setenv(CACHE_VARIABLE, str(of_all_workers / "phaselaw-cache"))
        build(["tiny-gpt2", "gpt2-5m"])
        yield cache_directory()


@pytest.fixture(scope="session")
def measured_cache(ladder_cache: Path) -> Path:
    """The same cache, in which this machine's limits are kept, really measured by ``phaselaw host``."""
    from phaselaw.cli import main
    from phaselaw.files import CACHE_VARIABLE
    from phaselaw.ladder.build import one_process_at_a_time
    from phaselaw.machine import limits

    folder = ladder_cache.parent
    with one_process_at_a_time(folder / "host"), pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder))
        patch.setattr(limits, "_measured", partial(_as_if_quiet, limits._measured))
        assert main(["host"]) == 0
    return folder


def _as_if_quiet(measured: Callable[[int], Any], threads: int) -> Any:
    """What was measured, kept although tests may run on a busy machine."""
    found = measured(threads)
    return replace(found, clock=replace(found.clock, taken_share=0.0))


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The reference data beside the repository (or ``$PHASELAW_REFERENCE_DATA``); skips where it is not at hand."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    found = Path(os.environ.get("PHASELAW_REFERENCE_DATA", beside))
    if not (found / "tr121" / "primary_run" / "metrics.csv").is_file():
        pytest.skip(f"the reference data is not at hand ({found})")
    return found


@pytest.fixture(scope="session")
def tr121(reference_data: Path) -> "Analysis":
    """TR121's primary run, analysed; many ask about it and none changes it."""
    from phaselaw.laws.analysis import analyze
    from phaselaw.rundir.read import load

    return analyze(load(reference_data / "tr121" / "primary_run"))


@contextmanager
def without_processes_and_pictures() -> Iterator[pytest.MonkeyPatch]:
    """Within this replicates are measured in this process, and no plot is drawn."""
    from phaselaw.measure import replicates

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicates, "in_a_fresh_process", replicates._in_this_process)
        patch.setattr("phaselaw.api.draw", lambda _: "")
        yield patch


@pytest.fixture(scope="module")
def no_process_no_picture() -> Iterator[None]:
    """For who looks at neither."""
    with without_processes_and_pictures():
        yield


@pytest.fixture(scope="module")
def each_run_is_read_once() -> Iterator[None]:
    """The same, where many commands ask about a few runs: each is read and analysed once."""
    from snapshot import loaded_once

    with without_processes_and_pictures() as patch:
        patch.setattr("phaselaw.api.load", loaded_once())
        yield


@pytest.fixture(scope="session")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default study's dry run, without pictures: for who asks about it and leaves it as it is."""
    from phaselaw.cli import main

    run = tmp_path_factory.mktemp("dry") / "run"
    with without_processes_and_pictures():
        assert main(["run", "--dry-run", "--out", str(run)]) == 0
    return run
