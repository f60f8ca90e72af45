"""The ladder's replies where a server ends those that repeat a piece or break a character, as Ollama does."""

from pathlib import Path

import pytest

import ladder_weights
from phaselaw.engines.llamacpp_process import find_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_server(None) is None, reason="no llama-server here: install phaselaw[llamacpp]"),
]


def test_a_model_of_the_ladder_runs_all_its_tokens_and_with_the_weights_of_before_none_does(
    ladder_cache: Path, tmp_path: Path
) -> None:
    assert ladder_cache.is_dir()
    tiny = ladder_weights.LADDER[0]
    assert ladder_weights.cut_replies(f"models/{tiny.name}", calls=1) == 0
    assert ladder_weights.cut_replies(str(ladder_weights.before(tiny, tmp_path)), calls=1) == 3
