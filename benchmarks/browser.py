"""The Chromium that tests and benchmarks of the page drive."""

import shutil
from collections.abc import Callable

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SLOW = 120_000
"""Milliseconds that a step may take, on a machine that does other work."""

Opener = Callable[..., object]
