"""The ladder as GGUF files: what stands in them, which can't be quantised, that a file is written once and whole."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from phaselaw.engines.gguf_header import read_header
from phaselaw.errors import NotReadyError, UsageError
from phaselaw.files import CACHE_VARIABLE
from phaselaw.ladder.gguf import Exported, export, exportable

gguf = pytest.importorskip("gguf", reason="exporting needs phaselaw[llamacpp]")


@pytest.fixture(scope="module")
def exported(ladder_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    assert ladder_cache.is_dir()
    return export("gpt2-5m", "f32", tmp_path_factory.mktemp("gguf"))


def test_its_header_says_what_the_model_is(exported: Exported) -> None:
    said, _ = read_header(exported.path)
    assert (said["general.architecture"], said["general.name"]) == ("gpt2", "gpt2-5m")
    assert (said["gpt2.block_count"], said["gpt2.embedding_length"], said["gpt2.context_length"]) == (12, 80, 1024)


def test_f32_keeps_every_bit_of_every_tensor(exported: Exported, ladder_cache: Path) -> None:
    safetensors, folder = pytest.importorskip("safetensors"), ladder_cache / "gpt2-5m"
    with safetensors.safe_open(folder / "model.safetensors", "np") as stored:
        embedding, up = map(stored.get_tensor, ("transformer.wte.weight", "transformer.h.3.mlp.c_fc.weight"))
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(exported.path).tensors}
    assert np.array_equal(tensors["token_embd.weight"].data.reshape(embedding.shape), embedding)
    assert np.array_equal(tensors["blk.3.ffn_up.weight"].data, up.T), "GPT-2 keeps it the other way round"
    assert sum(int(np.prod(tensor.shape)) for tensor in tensors.values()) == 5_036_720


def test_the_same_source_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    assert export("gpt2-5m", "f32", tmp_path).path.read_bytes() == exported.path.read_bytes()


def test_its_modelfile_is_what_ollama_create_reads(exported: Exported) -> None:
    lines = exported.modelfile.read_text().splitlines()
    assert "FROM ./gpt2-5m-f32.gguf" in lines
    assert "PARAMETER num_ctx 1024" in lines
    assert any(line.startswith("# ollama create models/gpt2-5m:f32 -f ") for line in lines)


def test_a_whole_file_is_kept_and_a_damaged_one_written_anew(ladder_cache: Path, tmp_path: Path) -> None:
    assert ladder_cache.is_dir()
    written: list[str] = []
    path = export("tiny-gpt2", "f32", tmp_path, note=written.append).path
    whole = path.read_bytes()
    export("tiny-gpt2", "f32", tmp_path, note=written.append)
    assert len(written) == 1
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    export("tiny-gpt2", "f32", tmp_path, note=written.append)
    assert len(written) == 2 and path.read_bytes() == whole


def test_a_folder_named_as_another_model_has_a_file_of_its_own(
    ladder_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    other = shutil.copytree(ladder_cache / "tiny-gpt2", tmp_path / "tiny-gpt2")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    built = export("tiny-gpt2", "f32").path
    whole = built.read_bytes()
    again = export(str(other), "f32").path
    assert built.read_bytes() == whole and again.read_bytes() != whole


@pytest.mark.parametrize("weights", ["q8_0", "q4_0"])
@pytest.mark.parametrize(("name", "width"), [("tiny-gpt2", 2), ("gpt2-5m", 80)])
def test_a_width_that_is_no_multiple_of_32_has_no_quantised_form(name: str, width: int, weights: str) -> None:
    with pytest.raises(UsageError, match=rf"{name} can't be {weights}: its width {width} is not a multiple of 32"):
        export(name, weights)  # type: ignore[arg-type]
    wanted, refused = exportable(None, [weights])  # type: ignore[list-item]
    assert name not in {each for each, _ in wanted}
    assert any(line.startswith(name) for line in refused)
    assert len(wanted) == 5


def test_a_folder_that_holds_no_gpt2_is_refused_naming_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(NotReadyError, match=r"config\.json: model_type is 'llama'"):
        export(str(tmp_path), "f32", tmp_path / "out")
