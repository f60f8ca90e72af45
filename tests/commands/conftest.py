"""What the tests of several commands share."""

from collections.abc import Iterator

import pytest
from snapshot import loaded_once


@pytest.fixture(scope="module")
def each_run_is_read_once() -> Iterator[None]:
    """Many commands ask about a few runs: read and analysed once; and no picture is looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("phaselaw.api.load", loaded_once())
        patch.setattr("phaselaw.api.draw", lambda _: "")
        yield
