"""What a machine can do at most, as measured: read bandwidth by working-set size, FLOP/s by number format, its clock.

`phaselaw.machine.probe` measures it, in a process of its own. It is kept in the user's cache folder, and stands in each
run's manifest (``host.limits``), where the laws read it. Bandwidth is in GB/s (1e9 bytes), a rate of arithmetic in
GFLOP/s (1e9 operations, a multiply-add counted as two).
"""

import dataclasses
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil
from pydantic import TypeAdapter, ValidationError

from phaselaw.errors import NotReadyError
from phaselaw.files import cache_folder, write_json
from phaselaw.machine.identity import HARDWARE
from phaselaw.machine.neighbours import BUSY_SHARE

LIMITS_VERSION = 2
"""Rises when the measuring changes, so that limits kept before are measured anew."""
LONGEST_S = 120.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
                     "VECLIB_MAXIMUM_THREADS")  # fmt: skip
_LIBRARIES = ("numpy", "torch")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A figure that was measured several times: the median and the quartiles."""

    median: float
    p25: float
    p75: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of at least one value; quartiles interpolate linearly."""
        import numpy as np  # not at the top: who only reads what is kept starts sooner

        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
        return cls(median=middle, p25=low, p75=high, n=len(values))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bandwidth:
    """Bytes read a second from a working set that is read over and over."""

    working_set_bytes: int
    gb_per_s: Spread


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """Rate of a large matrix product in one number format, by the library that was fastest at it."""

    dtype: str
    """A study's word: ``fp32``, ``fp64``, ``bf16``, ``fp16``."""
    gflop_per_s: Spread
    library: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DeviceLimits:
    """The limits of the processor, or of one GPU."""

    name: str
    read: tuple[Bandwidth, ...]
    """By working-set size, ascending."""
    compute: tuple[Compute, ...]
    copy: Bandwidth | None = None
    """The largest working set copied; bytes read and bytes written both count."""

    def read_at(self, working_set_bytes: float) -> float | None:
        """GB/s at a working-set size, linear between the measured sizes on a log axis of size.

        Below the smallest and above the largest measured size it is that size's; ``None`` where none was measured.
        """
        import numpy as np

        if not self.read:
            return None
        sizes = [math.log(point.working_set_bytes) for point in self.read]
        rates = [point.gb_per_s.median for point in self.read]
        return float(np.interp(math.log(max(working_set_bytes, 1.0)), sizes, rates))

    def gflop_per_s(self, dtype: str) -> float | None:
        """GFLOP/s in a number format; ``None`` where that was not measured."""
        return next((each.gflop_per_s.median for each in self.compute if each.dtype == dtype), None)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """The process's timer, and how much of its time the process did not have."""

    resolution_ns: float
    """Smallest step between two readings that differ."""
    read_ns: float
    """Median time from one reading to the next: what a reading costs."""
    watched_s: float
    gap_p99_us: float
    """Of all gaps between readings, the 99th percentile in microseconds."""
    gap_max_us: float
    taken_share: float
    """Share of the watched time in gaps over 10 microseconds: someone else had the core."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MachineLimits:
    """All that was measured of a machine."""

    version: int
    threads: int
    measured_at_unix: float
    took_s: float
    clock: Clock
    devices: Mapping[str, DeviceLimits]
    """``cpu``, and ``cuda:0`` and so on where there are GPUs that torch can use."""

    def device(self, name: str | None) -> DeviceLimits | None:
        """The limits of a device as an engine names it; ``cuda`` is ``cuda:0``, and none at all the processor."""
        wanted = name or "cpu"
        return self.devices.get(f"{wanted}:0" if wanted == "cuda" else wanted)

    @property
    def doubt(self) -> str | None:
        """Why these are no limits of the machine: others had more than `BUSY_SHARE` of the time; ``None`` if not."""
        taken = self.clock.taken_share
        told = f"not kept: others took {taken:.0%} of the time while measuring (over {BUSY_SHARE:.0%})"
        return told if taken > BUSY_SHARE else None

    @staticmethod
    def from_json(document: Any) -> "MachineLimits | None":
        """What was kept of them as JSON; ``None`` for anything else, another version's document among it."""
        with suppress(ValidationError):
            found = TypeAdapter(MachineLimits).validate_python(document)
            return found if found.version == LIMITS_VERSION else None
        return None


def all_threads() -> int:
    """The processors that this process may use."""
    with suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count(logical=True) or 1


def limits_of(host: Mapping[str, Any], *, threads: int | None = None, refresh: bool = False) -> MachineLimits:
    """The limits of this machine (`phaselaw.machine.identity.host`), kept ones unless there are none or ``refresh``.

    Raises `NotReadyError` where they can't be measured.
    """
    count = threads or all_threads()
    kept = None if refresh else kept_limits(host, threads=count)
    if kept is not None:
        return kept
    limits = _measured(count)
    path = _file(host, count)
    # Where nothing can be kept, it is measured again the next time.
    with suppress(OSError):
        if limits.doubt is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, dataclasses.asdict(limits))
    return limits


def kept_limits(host: Mapping[str, Any], *, threads: int | None = None) -> "MachineLimits | None":
    """What was kept of this machine; ``None`` where nothing was, or where that is in doubt."""
    with suppress(OSError, ValueError):
        found = MachineLimits.from_json(json.loads(_file(host, threads or all_threads()).read_text(encoding="utf-8")))
        return None if found is None or found.doubt else found
    return None


def _file(host: Mapping[str, Any], threads: int) -> Path:
    libraries = host.get("libraries") or {}
    parts = [LIMITS_VERSION, threads, *(host.get(part) for part in HARDWARE), *map(libraries.get, _LIBRARIES)]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return cache_folder() / "host" / f"{digest[:16]}.json"


def _measured(threads: int) -> MachineLimits:
    environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "phaselaw.machine.probe", str(threads)],
            capture_output=True, text=True, timeout=LONGEST_S, check=False, stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotReadyError(f"measuring this machine took over {LONGEST_S:g} s; is it busy? try again") from None
    limits = None
    with suppress(ValueError):
        limits = MachineLimits.from_json(json.loads(done.stdout))
    if done.returncode != 0 or limits is None:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise NotReadyError(f"this machine's limits can't be measured: {said[:300]}")
    return limits
