"""Peak resident memory of a process while a call runs.

On Linux the kernel keeps a process's high-water mark of resident memory (``VmHWM``) and resets it when 5 is written to
``/proc/PID/clear_refs`` (proc(5)): reset before the call, read after it, nothing sampled in between. Elsewhere, or
where the process is another user's, there is no figure.
"""

import re
from contextlib import suppress
from pathlib import Path

import psutil

MB = 1 << 20
"""Bytes in what a column calls MB: as TR121's ``gpu_peak_mb``, 2^20."""


class PeakMemory:
    """The peak of one process, from one `reset` to the next `read_mb`."""

    def __init__(self, pid: int | str | None = "self") -> None:
        """Of this process, or of another by its number; ``None`` is one that can't be found, and has no figure."""
        self._folder = Path("/proc") / str(pid)
        self._was_reset = False

    def reset(self) -> None:
        """Let the peak begin anew at what is resident now."""
        try:
            (self._folder / "clear_refs").write_bytes(b"5")
            self._was_reset = True
        except OSError:
            self._was_reset = False

    def read_mb(self) -> float | None:
        """The peak since the last reset, in MB of 2^20 bytes; ``None`` where it couldn't be reset or read."""
        if self._was_reset:
            with suppress(OSError):
                # As bytes: decoding text takes seven times as long, and this stands between two calls.
                found = re.search(rb"^VmHWM:\s+(\d+) kB", (self._folder / "status").read_bytes(), re.MULTILINE)
                return None if found is None else int(found[1]) * 1024 / MB
        return None


def resident_mb() -> float:
    """What is resident of this process now, in MB of 2^20 bytes."""
    resident: int = psutil.Process().memory_info().rss
    return resident / MB


def free_bytes() -> int:
    """What this process may still take: the machine's available memory, or what its cgroup (version 2) leaves it."""
    free: list[int] = [psutil.virtual_memory().available]
    with suppress(OSError, ValueError):
        group = Path("/proc/self/cgroup").read_text().splitlines()[-1].rpartition(":")[2]
        for folder in (Path("/sys/fs/cgroup") / group.lstrip("/"), Path("/sys/fs/cgroup")):
            with suppress(OSError, ValueError):
                # Pages of files count as used, and go when memory is wanted.
                cached = re.search(r"^inactive_file (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
                used = int((folder / "memory.current").read_text()) - (int(cached[1]) if cached else 0)
                free.append(int((folder / "memory.max").read_text()) - used)  # "max" is no number
    return max(0, min(free))
