"""Weights are seeded noise of GPT-2's scale, bit for bit the same anywhere."""

import json
import lzma
import math
from pathlib import Path

import numpy as np
import pytest

from ladder_tokenizer import byte_symbols
from phaselaw.ladder import build
from phaselaw.ladder.spec import LADDER, ladder_model
from phaselaw.ladder.weights import STD, safetensors_chunks, seeded_integers, tensor_shapes

TINY, SMALL = LADDER[:2]


def read(model) -> tuple[dict, dict[str, np.ndarray]]:
    """A safetensors file by its format's own rules, without the library."""
    data = b"".join(safetensors_chunks(model))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata, body = header.pop("__metadata__"), data[8 + length :]
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        assert entry["dtype"] == "F32"
        tensors[name] = np.frombuffer(body[start:end], "<f4").reshape(entry["shape"])
    assert sum(tensor.nbytes for tensor in tensors.values()) == len(body)
    return metadata, tensors


@pytest.mark.parametrize("model", LADDER, ids=lambda model: model.name)
def test_the_stored_tensors_hold_exactly_the_stated_parameters(model) -> None:
    assert sum(math.prod(shape) for shape in tensor_shapes(model).values()) == model.params


def test_the_raw_stream_is_the_one_that_numpy_promises_never_to_change() -> None:
    assert [hex(int(number)) for number in seeded_integers("phaselaw", 3)] == [
        "0x47bbd021f324b0e3",
        "0x35c491ae963cb9f7",
        "0x6e0e52aba32e991e",
    ]


def test_different_seeds_give_different_streams_and_a_longer_one_goes_on_where_a_shorter_ended() -> None:
    assert not np.array_equal(seeded_integers("a", 8), seeded_integers("b", 8))
    assert np.array_equal(seeded_integers("a", 8)[:5], seeded_integers("a", 5))


def test_weights_have_the_mean_and_spread_that_gpt2_starts_with() -> None:
    _, tensors = read(SMALL)
    embedding = tensors["transformer.wte.weight"].astype(float)
    embedding = embedding[embedding.any(axis=1)]
    assert embedding.std() == pytest.approx(STD, rel=0.001)
    assert abs(embedding.mean()) < 5 * STD / math.sqrt(embedding.size)
    assert np.abs(embedding).max() == pytest.approx(STD * math.sqrt(3), rel=1e-5)


def test_projections_to_the_residual_stream_are_scaled_down_by_depth() -> None:
    _, tensors = read(SMALL)
    for name in ("attn.c_proj", "mlp.c_proj"):
        spread = np.concatenate(
            [tensors[f"transformer.h.{i}.{name}.weight"].ravel() for i in range(SMALL.n_layer)]
        ).std()
        assert spread == pytest.approx(STD / math.sqrt(2 * SMALL.n_layer), rel=0.01)


def test_layer_norms_start_as_the_identity_the_last_as_its_negative_and_biases_at_zero() -> None:
    _, tensors = read(SMALL)
    embedding = tensors.pop("transformer.wte.weight")
    for name, tensor in tensors.items():
        if name.endswith(".bias"):
            assert not tensor.any(), name
        elif ".ln_" in name:
            assert (tensor == (-1 if "ln_f" in name else 1)).all(), name
        else:
            assert tensor.all(), f"{name} has a zero: the integers behind it are all odd"
    assert embedding[embedding.any(axis=1)].all()


def test_the_embeddings_that_are_zero_are_those_of_tokens_that_are_no_text_alone_and_of_end_of_text() -> None:
    vocabulary = json.loads(lzma.decompress((Path(build.__file__).parent / build.TOKENIZER).read_bytes()))["model"][
        "vocab"
    ]
    byte_of = {symbol: byte for byte, symbol in enumerate(byte_symbols())}

    def is_text(token: str) -> bool:
        try:
            return token != build.END_OF_TEXT and bool(bytes(byte_of[each] for each in token).decode())
        except UnicodeDecodeError:
            return False

    expected = sorted(number for token, number in vocabulary.items() if not is_text(token))
    assert len(expected) == 1_090
    for model in (TINY, SMALL):
        embedding = read(model)[1]["transformer.wte.weight"]
        assert np.flatnonzero(~embedding.any(axis=1)).tolist() == expected


def test_no_two_tensors_share_their_values() -> None:
    _, tensors = read(SMALL)
    first = tensors["transformer.h.0.attn.c_attn.weight"]
    assert not np.array_equal(first, tensors["transformer.h.1.attn.c_attn.weight"])
    assert not np.array_equal(first.ravel()[:64], read(TINY)[1]["transformer.wte.weight"].ravel()[:64])


def test_the_file_says_that_it_is_a_pytorch_one_as_transformers_requires() -> None:
    assert read(TINY)[0] == {"format": "pt"}


def test_the_library_reads_the_file_as_we_wrote_it() -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    model = ladder_model("tiny-gpt2")
    loaded = safetensors.load(b"".join(safetensors_chunks(model)))
    assert {name: tensor.shape for name, tensor in loaded.items()} == tensor_shapes(model)
    assert all(np.array_equal(tensor, loaded[name]) for name, tensor in read(model)[1].items())
