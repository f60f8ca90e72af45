"""``phaselaw memory``: sizes as people write them, and an answer for people and for machines."""

import argparse
import json
from pathlib import Path

import pytest

from phaselaw.cli import main
from phaselaw.commands.memory import size


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("16GB", 16e9), ("1.5 gib", 1.5 * 2**30), ("80G", 80e9), ("1024", 1024), ("500MB", 5e8)]
)
def test_a_size_is_read_as_it_is_written(text: str, size_bytes: float) -> None:
    assert size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1XB", "0GB", "1e9", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        size(text)


def test_it_says_whether_a_model_fits_and_how_far_it_could_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "models/gpt2-100m", "--memory", "2GB"]) == 0
    out = capsys.readouterr().out
    assert "models/gpt2-100m: batch 1 at 1024 tokens fits" in out
    assert "weights 0.384 GB" in out
    assert "(the model's positions)" in out
    assert main(["memory", "models/gpt2-100m", "--memory", "300MB"]) == 0
    assert "does not fit" in capsys.readouterr().out


def test_as_json_it_is_in_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "models/gpt2-5m", "--memory", "1GiB", "--batch", "4", "--dtype", "fp16", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    [row] = document["rows"]
    assert document["assumptions"]["memory_bytes"] == 2**30
    assert row["weights_bytes"] == 5_036_720 * 2
    assert row["kv_cache_bytes"] == 4 * 1024 * 2 * 12 * 80 * 2
    assert row["fits"] is True
    assert row["largest_batch"] >= 4


def test_a_model_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "nothing/here", "--memory", "1GB"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_ladder_model_goes_by_its_short_name_unless_a_folder_here_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["memory", "gpt2-25m", "--memory", "2GB"]) == 0
    assert capsys.readouterr().out.startswith("models/gpt2-25m: ")
    (tmp_path / "gpt2-25m").mkdir()
    assert main(["memory", "gpt2-25m", "--memory", "2GB"]) == 2
