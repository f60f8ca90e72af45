"""``python -m phaselaw.engines.llamacpp_guard COMMAND...``: runs a server that must not outlive phaselaw.

phaselaw holds the other end of this process's standard input and never writes to it. However phaselaw ends, a kill -9
included, the system closes that end; this process then stops the server and goes. Were this process killed itself,
Linux would kill the server with it. Nothing here is heavy, and the server's weights are in no process but its own.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

STOP_WAIT_S = 5.0
"""What a server gets to stop by itself before it is killed."""

_PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> None:
    """Run a command until it ends, whose exit code is then this process's, or until standard input is closed."""
    prctl, guard = ctypes.CDLL(None).prctl if sys.platform == "linux" else None, os.getpid()

    def die_with_guard() -> None:
        """In the server, before it is one: be killed when the thread that starts it, the guard's only one, ends."""
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:  # gone before it was armed
                os._exit(1)

    def leave_with_server() -> None:
        code = server.wait()
        end_group(signal.SIGKILL)
        os._exit(code if code >= 0 else 128 - code)

    def end_group(how: int) -> None:
        """The server may be a script that started the real one: its whole process group is ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, how)

    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_guard, start_new_session=True)
    threading.Thread(target=leave_with_server, daemon=True).start()
    while os.read(sys.stdin.fileno(), 1024):
        pass
    end_group(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(STOP_WAIT_S)
    end_group(signal.SIGKILL)
    server.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
