"""What several rooms' tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is no property of what is tested: a busy machine must fail nothing.
settings.register_profile("phaselaw", deadline=None)
settings.load_profile("phaselaw")


@pytest.fixture(scope="session")
def ladder_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model cache with the two smallest models built: ``$PHASELAW_CACHE``, or else a fresh one."""
    from phaselaw.files import CACHE_VARIABLE
    from phaselaw.ladder.build import build, cache_directory

    with pytest.MonkeyPatch.context() as patch:
        if not os.environ.get(CACHE_VARIABLE):
            patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("phaselaw-cache")))
        build(["tiny-gpt2", "gpt2-5m"])
        yield cache_directory()


@pytest.fixture(scope="session")
def measured_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which this machine's limits are kept, really measured by ``phaselaw host``."""
    from phaselaw.cli import main
    from phaselaw.files import CACHE_VARIABLE

    folder = tmp_path_factory.mktemp("measured-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder))
        assert main(["host"]) == 0
    return folder


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The reference data beside the repository (or ``$PHASELAW_REFERENCE_DATA``); skips where it is not at hand."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    found = Path(os.environ.get("PHASELAW_REFERENCE_DATA", beside))
    if not (found / "tr121" / "primary_run" / "metrics.csv").is_file():
        pytest.skip(f"the reference data is not at hand ({found})")
    return found
