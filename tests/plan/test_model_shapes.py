"""A model's shape from names and files: the same model says the same, whatever it is kept as."""

import dataclasses
from pathlib import Path

import pytest

from phaselaw.errors import AnalysisError, UsageError
from phaselaw.plan.model_shapes import shapes_of

NAME = "models/gpt2-5m"


def test_a_folder_says_what_the_ladder_says(ladder_cache: Path) -> None:
    [by_name], [by_folder] = (
        list(shapes_of(each, dtype=None).values()) for each in (NAME, str(ladder_cache / "gpt2-5m"))
    )
    assert by_folder == by_name


def test_a_gguf_file_says_what_the_ladder_says(ladder_cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from phaselaw.ladder.gguf_export import export

    [by_name] = shapes_of(NAME, dtype=None).values()
    [by_file] = shapes_of(str(export(str(ladder_cache / "gpt2-5m"), "f32", tmp_path).path), dtype=None).values()
    assert by_file == dataclasses.replace(by_name, n_kv_head=by_file.n_kv_head)
    assert by_file.n_kv_head == by_name.n_head


def test_another_number_format_changes_the_weights_and_nothing_else() -> None:
    [full], [half] = (list(shapes_of(NAME, dtype=dtype).values()) for dtype in (None, "bf16"))
    assert half == dataclasses.replace(full, weights_bytes=full.weights_bytes / 2, lookup_bytes=full.lookup_bytes / 2)


def test_what_is_no_model_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give a ladder model"):
        shapes_of(str(tmp_path), dtype=None)


def test_a_folder_without_a_shape_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(AnalysisError, match="shape can't be told"):
        shapes_of(str(tmp_path), dtype=None)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(AnalysisError, match="can't be read"):
        shapes_of(str(tmp_path), dtype=None)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(AnalysisError, match="no safetensors file"):
        shapes_of(str(tmp_path), dtype=None)
