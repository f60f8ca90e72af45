"""What else a machine does while a call runs: other processes' CPU time, time stolen from a virtual machine, and more.

It is read before a call and after it, never while it runs. Linux tells it (proc(5)); elsewhere nothing is known. What
phaselaw takes itself, the servers that it started, and the local server that it calls (the process that listens on the
URL's port, with its children) are no other work. Of a server whose process can't be found, in a container or another
user's, no one can say whose work is whose.
"""

import os
import resource
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from phaselaw.errors import NotReadyError
from phaselaw.records import Beside

BUSY_SHARE = 0.1
"""Other work that takes this share of the processors' time makes a machine busy."""
WATCH_S = 0.3
"""How long a machine is watched to tell whether it is busy."""
QUIET_WATCHES = 10
"""So many quiet watches in a row make a quiet machine."""

_CLOCKS = 8
"""Processors whose clock frequency is read."""


class _Reading(NamedTuple):
    """Seconds since some start: ``at`` by the clock, the others summed over processors; and a count."""

    at: float
    idle: float
    stolen: float
    own: float
    client: float
    switches: int


class Neighbours:
    """Watches what else the machine does beside calls: `before` and `after` each."""

    def __init__(self) -> None:
        mine = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        self.processors = len(mine)
        """Those that this process may use."""
        # The sum of all is rounded to a tick once, where all are ours.
        self._lines = [b"cpu"] if len(mine) == os.cpu_count() else [f"cpu{each}".encode() for each in mine]
        clocks = [Path(f"/sys/devices/system/cpu/cpu{each}/cpufreq/scaling_cur_freq") for each in mine[:_CLOCKS]]
        self._clocks = [each for each in clocks if each.is_file()]
        self._servers: dict[str, set[int]] = {}
        self._unknown: set[str] = set()
        self._begun: _Reading | None = None

    def serves(self, backend: str, url: str | None) -> None:
        """A backend's calls go to the server at a URL, or for ``None`` to one that this process started."""
        self._servers[backend], parts = set(), urlsplit(url or "")
        if parts.hostname and _is_here(parts.hostname):
            at = (parts.port or (443 if parts.scheme == "https" else 80),)
            with suppress(psutil.Error, OSError):  # it may be another user's, or in a container
                found = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
                self._servers[backend] |= {each.pid for each in found if each.pid is not None and each.laddr[1:2] == at}
            self._unknown = self._unknown - {backend} | ({backend} if not self._servers[backend] else set())

    def before(self, backend: str | None = None) -> None:
        """Something begins that is to be watched: a call to a backend, or nothing of ours."""
        self._begun = self._read(backend)

    def after(self, backend: str | None = None) -> Beside | None:
        """What the machine did since `before`; ``None`` where the system doesn't tell."""
        begun, ended = self._begun, self._read(backend)
        if begun is None or ended is None or ended.at <= begun.at:
            return None
        span, known = ended.at - begun.at, backend not in self._unknown
        shares = (max(0.0, now - then) / span for then, now in zip(begun[1:5], ended[1:5], strict=True))
        idle, stolen, own, client = shares
        kilohertz: list[int] = []
        with suppress(OSError, ValueError):
            kilohertz += (int(each.read_bytes()) for each in self._clocks)
        return Beside(
            own_cpus=own if known else None,
            other_cpus=max(0.0, self.processors - idle - stolen - own) if known else None,
            idle_cpus=idle,
            steal_cpus=stolen,
            involuntary_switches=ended.switches - begun.switches,
            clock_mhz=max(kilohertz) / 1e3 if kilohertz else None,
            load_average=os.getloadavg()[0],
            client_cpus=client,
        )

    def _read(self, backend: str | None) -> _Reading | None:
        if sys.platform != "linux":
            return None
        try:
            lines = [line.split() for line in Path("/proc/stat").read_bytes().split(b"\n") if line.startswith(b"cpu")]
        except OSError:
            return None
        at, tick = time.perf_counter(), os.sysconf("SC_CLK_TCK")
        mine = [[int(each) for each in line[1:]] for line in lines if line[0] in self._lines]
        own = (client := time.process_time()) + sum(os.times()[2:4])
        if backend in self._servers:
            own += sum(_ticks(pid) for pid in _trees({os.getpid(), *self._servers[backend]}) - {os.getpid()}) / tick
        return _Reading(
            at=at,
            idle=sum(line[3] + line[4] for line in mine) / tick,
            stolen=sum(line[7] for line in mine) / tick,
            own=own,
            client=client,
            switches=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        )


def _is_here(host: str) -> bool:
    with suppress(OSError):
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
        mine = {each.address for addresses in psutil.net_if_addrs().values() for each in addresses}
        return any(each in mine or each.startswith("127.") for each in found)
    return False


def _trees(roots: Iterable[int]) -> set[int]:
    """Processes with all that they started."""
    found = list(roots)
    for pid in found:
        with suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (thread / "children").read_bytes().split())
    return set(found)


def _ticks(pid: int) -> int:
    """The CPU time of a process and of its children that ended, in the kernel's ticks; 0 where it is gone."""
    with suppress(OSError):
        # After the name, which may hold anything, in parentheses.
        return sum(map(int, Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[11:15]))
    return 0


def busy_words() -> str | None:
    """What other processes take of this machine now, in words, where it is busy; ``None`` where it is quiet."""
    neighbours = Neighbours()
    neighbours.before()
    time.sleep(WATCH_S)
    found = neighbours.after()
    taken = 0.0 if found is None else (found.other_cpus or 0.0) + (found.steal_cpus or 0.0)
    if taken < BUSY_SHARE * neighbours.processors or taken == 0:
        return None
    return f"other processes take {taken:.1f} of {neighbours.processors} processors"


def wait_until_quiet(limit_s: float) -> Iterator[str]:
    """Return when the machine has been quiet for some watches in a row; what keeps it busy, again and again, till then.

    Raises `NotReadyError` where it is not quiet within the limit, or where the system doesn't tell.
    """
    if sys.platform != "linux":
        raise NotReadyError("--wait-quiet: this system does not tell what other processes do; leave it away")
    deadline, quiet, busy = time.monotonic() + limit_s, 0, "it was never quiet for long"
    while quiet < QUIET_WATCHES:
        if time.monotonic() >= deadline:
            raise NotReadyError(f"--wait-quiet: after {limit_s:g} s {busy}; nothing was measured")
        now = busy_words()
        quiet, busy = (quiet + 1, busy) if now is None else (0, now)
        if now is not None:
            yield now
