"""``phaselaw memory``: sizes as people write them, and an answer for people and for machines."""

import argparse
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from phaselaw.cli import main
from phaselaw.commands.memory import size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("16GB", 16e9), ("1.5 gib", 1.5 * 2**30), ("80G", 80e9), ("1024B", 1024), ("500MB", 5e8), ("0", 0)],
)
def test_a_size_is_read_as_it_is_written(text: str, size_bytes: float) -> None:
    assert size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1XB", "0GB", "1e9", "nan", "16", "1024"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        size(text)


def test_it_says_whether_a_model_fits_and_how_far_it_could_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "models/gpt2-100m", "--memory", "2GB"]) == 0
    out = capsys.readouterr().out
    assert "models/gpt2-100m: batch 1 at 1024 tokens fits" in out
    assert "weights 0.384 GB" in out
    assert "(the model's positions)" in out
    assert main(["memory", "models/gpt2-100m", "--memory", "300MB"]) == 3
    assert "does not fit" in capsys.readouterr().out


def test_more_tokens_than_positions_never_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "models/gpt2-5m", "--memory", "1TB", "--context", "2048"]) == 3
    out = capsys.readouterr().out
    assert "does not fit (more tokens than the model's positions)" in out
    assert "largest batch at 2048 tokens: none fits" in out
    assert "largest context at batch 1: 1024" in out


def test_a_size_without_a_unit_is_refused_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["memory", "models/gpt2-5m", "--memory", "16"])
    assert "'16' is no size; write 16GB or 16GiB" in capsys.readouterr().err


def folder_of(path: Path, **config: Any) -> str:
    """A model folder of 1,000 values in bfloat16."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    head = json.dumps({"w": {"dtype": "BF16", "shape": [10, 100], "data_offsets": [0, 2000]}}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(2000))
    return str(path)


PLAIN = {"num_hidden_layers": 6, "hidden_size": 64, "num_attention_heads": 4, "head_dim": 32, "vocab_size": 256,
         "max_position_embeddings": 8192}  # fmt: skip


def test_the_cache_is_as_the_config_says_and_in_the_format_of_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    more = {"layer_types": kinds, "sliding_window": 16, "num_key_value_heads": 1}
    folder = folder_of(tmp_path / "slides", text_config=PLAIN | more, model_type="gemma3")
    assert main(["memory", folder, "--memory", "1GB", "--context", "4096", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert row["kv_cache_bytes"] == 2 * 2 * 32 * (5 * 16 + 4096)


def test_positions_that_are_not_stated_are_said_to_bound_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    unbound = {key: value for key, value in PLAIN.items() if key != "max_position_embeddings"}
    assert main(["memory", folder_of(tmp_path / "unbound", **unbound), "--memory", "1GB"]) == 0
    assert "its positions are not stated: memory alone bounds its context" in capsys.readouterr().out


def test_a_cache_that_is_not_known_is_neither_fitting_nor_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "odd", **PLAIN, mamba_d_state=16)
    assert main(["memory", folder, "--memory", "1TB"]) == 1
    assert "odd: not known: what it caches is not known: its config has mamba_d_state" in capsys.readouterr().out
    assert main(["memory", folder, "--memory", "1TB", "--json"]) == 1
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert row["fits"] is None


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


@pytest.mark.parametrize(
    ("model", "context", "fits", "kv_cache_bytes"),
    [("m1_sliding_window", 4096, True, 534_528), ("m2_latent_attention", 4096, True, 1_310_720),
     ("m3_experts", 4096, True, 2 * 2 * 32 * 2 * (32 + 4096)), ("m4_short_positions", 4096, False, None),
     ("m5_kv_heads_by_layer", 2048, True, 2 * 2 * 16 * (1 + 1 + 2) * 2048)],
)  # fmt: skip
def test_the_shared_cases_are_answered_as_they_are_to_be(
    model: str, context: int, fits: bool, kv_cache_bytes: int | None, shared_models: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked = ["memory", str(shared_models / model), "--memory", "16GB", "--context", str(context), "--json"]
    assert main(asked) == (0 if fits else 3)
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert row["fits"] is fits
    assert kv_cache_bytes in (None, row["kv_cache_bytes"])
    assert main(["memory", str(shared_models / model), "--memory", "1TB", "--context", "8193"]) == 3


@pytest.fixture(scope="module")
def shared_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folders of the shared cases; skips where these are not beside the repository."""
    make = Path(__file__).resolve().parents[3] / "shared" / "cases" / "make_models.py"
    if not make.is_file():
        pytest.skip(f"the shared cases are not at hand ({make})")
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, str(make), str(folder)], check=True)
    return folder
