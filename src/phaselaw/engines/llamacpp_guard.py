"""``python -m phaselaw.engines.llamacpp_guard COMMAND...``: runs a server that must not outlive phaselaw.

phaselaw holds the other end of this process's standard input and never writes to it. However phaselaw ends, a kill -9
included, the system closes that end; this process then stops the server and goes. Were this process killed itself,
Linux would kill the server with it. Nothing here is heavy, and the server's weights are in no process but its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

STOP_WAIT_S = 5.0
"""What a server gets to stop by itself before it is killed."""

_PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> int:
    """Run a command until it ends or standard input is closed; returns its exit code, or 0 where it was stopped."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_dying_with_this_process())
    threading.Thread(target=_leave_with, args=(server,), daemon=True).start()
    while os.read(sys.stdin.fileno(), 1024):
        pass
    _stop(server)
    return 0


def _dying_with_this_process() -> Callable[[], object] | None:
    """What a child runs to be killed when the thread that started it, this process's only one then, ends."""
    if sys.platform != "linux":
        return None
    prctl, mine = ctypes.CDLL(None).prctl, os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != mine:  # gone before it was armed
            os._exit(1)

    return arm


def _leave_with(server: subprocess.Popen[bytes]) -> None:
    """End this process when the server ends, with its exit code."""
    code = server.wait()
    os._exit(code if code >= 0 else 128 - code)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_WAIT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
