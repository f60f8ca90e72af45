"""The limits of this machine: kept from an earlier time in the user's cache folder, or measured now."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from phaselaw.errors import NotReadyError
from phaselaw.files import write_json
from phaselaw.ladder.build import cache_directory
from phaselaw.machine.limits import LIMITS_VERSION, MachineLimits

LONGEST_S = 120.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
                     "VECLIB_MAXIMUM_THREADS")  # fmt: skip
_DECIDING = ("os", "machine", "cpu_model", "cores_physical", "cores_logical", "gpus")
_LIBRARIES = ("numpy", "torch")


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
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, limits.to_json())
    return limits


def kept_limits(host: Mapping[str, Any], *, threads: int | None = None) -> MachineLimits | None:
    """What was kept of this machine; ``None`` where nothing was."""
    with suppress(OSError, ValueError):
        return MachineLimits.from_json(json.loads(_file(host, threads or all_threads()).read_text(encoding="utf-8")))
    return None


def _file(host: Mapping[str, Any], threads: int) -> Path:
    libraries = host.get("libraries") or {}
    parts = [LIMITS_VERSION, threads, *(host.get(part) for part in _DECIDING), *map(libraries.get, _LIBRARIES)]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return cache_directory().parent / "host" / f"{digest[:16]}.json"


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
