"""Each reader of what comes from outside holds against a fuzzer for some seconds, and against what once broke it."""

import gzip
import importlib.util
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SPEC = importlib.util.spec_from_file_location("fuzz_readers", HERE / "readers.py")
fuzz = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fuzz)

SECONDS = float(os.environ.get("PHASELAW_FUZZ_SECONDS", "2"))
"""CI gives each reader 5, benchmarks and docs/reliability.md more."""


@pytest.fixture(scope="module")
def fuzzers() -> Iterator[Any]:
    with fuzz.Fuzzers() as started:
        yield started


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs the package atheris")
@pytest.mark.parametrize("name", fuzz.READERS)
def test_a_fuzzer_finds_nothing(name: str, fuzzers: Any) -> None:
    found = fuzzers.fuzzed(name, SECONDS)
    assert "said" not in found, found
    assert found["executions"] > 0


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs the package atheris")
def test_the_memory_of_what_starts_a_fuzzer_is_not_counted_as_the_readers() -> None:
    big = f"import sys; sys.path.insert(0, {str(HERE)!r}); import readers; x = b'1' * 1_100_000_000\n"
    big += "with readers.Fuzzers(['plan.inputs']) as fuzzers:\n    print(fuzzers.fuzzed('mixes', 1))\n"
    done = subprocess.run([sys.executable, "-c", big], capture_output=True)
    assert b"executions" in done.stdout
    assert b"said" not in done.stdout


DEEP = b"[" * 2000 + b"]" * 2000
ONE_EVENT = b"data: {\n" + b"data: 1\n" * 100_000
HEAD = b"GGUF" + struct.pack("<I", 3)
HUGE = b"1" + b"0" * 400
CONFIG = fuzz.CONFIG
BROKE_ONCE = {
    "journal": [
        f"{fuzz.HEADER}\n".encode() + DEEP + b"\n",
        fuzz.HEADER.replace("git_commit", "commit").encode() + b"\n",
    ],
    "manifest": [
        b'{"run_id": 1, "processes": [1], "host": [], "study": 5}',
        DEEP,
        b"null",
        b'{"replicates": {}}',
        b'{"order": ""}',
    ],
    "gguf": [
        HEAD + struct.pack("<QQ", 0, 1) + fuzz.gguf_text("general.alignment") + struct.pack("<II", 4, 0),
        HEAD + struct.pack("<QQ", 0, 1) + fuzz.gguf_text("general.alignment") + struct.pack("<If", 6, float("inf")),
        HEAD + struct.pack("<QQ", 0, 1) + fuzz.gguf_text("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000,
        HEAD + struct.pack("<QQ", 1, 0) + fuzz.gguf_text("a") + struct.pack("<I", 60_000) + b"\xff" * 480_000,
    ],
    "model_config": [
        *(json.dumps(CONFIG | wrong).encode() for wrong in ({"n_layer": 10**9}, {"n_embd": {"": 8}})),
        *(DEEP, b"[]", b'{"n_layer": [1]}'),
    ],
    "safetensors": [b"\xff" * 8, struct.pack("<Q", 4000) + DEEP, fuzz.WEIGHTS.replace(b'"F32"', b'"F99"')],
    "gpt2_folder": [
        b"\x00" + json.dumps(CONFIG | {"vocab_size": 10**10}).encode(),
        b"\x00" + json.dumps(CONFIG | {"n_layer": 10**6, "bos_token_id": "a"}).encode(),
        b"\x01" + DEEP,
    ],
    "llamacpp_stream": [b'data: {"content": "", "tokens": 2, "stop": true, "timings": {}}\n\n', ONE_EVENT],
    "ollama_stream": [b'{"done": true, "eval_count": ' + HUGE + b"}", b'{"response": [1], "done": true}', DEEP],
    "openai_stream": [
        ONE_EVENT,
        b'data: {"choices": 5, "usage": {"completion_tokens": ' + HUGE + b"}}\ndata: [DONE]\n",
    ],
    "http_reply": [b"HTTP/1.1 302 F\r\nLocation: http://a..b\x00/%s\r\n\r\n" % bad for bad in (b"", b"\xff", b"[")],
    "price_list": [b"gpu type,gpus,on-demand\na,0.5,3\nc," + HUGE + b",1\n", b"gpu type,on-demand\n\xff"],
    "prometheus_page": [b'vllm:x_bucket{le="abc"} 1\n', b'vllm:a{b="\\'],
    "traffic_profile": [b'{"kinds": [{}], "requests_per_s": 1, "schema_version": 1}', DEEP],
    "metrics": [b"\xff\xfe", fuzz.METRICS.encode().replace(b"1e3", b"1e308"), gzip.compress(fuzz.METRICS.encode())],
    "request_log": [
        b'{"timestamp": [1], "prompt_tokens": ' + HUGE + b"}\n",
        b'timestamp,prompt_tokens\n"open,1\n2,3\n',
        b"timestamp,prompt_tokens," + b"x" * 200_000 + b"\n1,2,3\n",
        *(b'{"timestamp": 1, "prompt_tokens": 2, "%s": 1}\n' % (part * 400_000) for part in (b"x", b"a.")),
    ],
}


@pytest.mark.parametrize("name", fuzz.READERS)
def test_a_sound_input_and_what_once_broke_a_reader_are_read_or_refused_in_a_moment(name: str) -> None:
    for data in (*fuzz.SEEDS[name], b"", b"\x00" * 100, *BROKE_ONCE.get(name, ())):
        began = time.process_time()
        fuzz.run_once(name, data)
        assert time.process_time() - began < 10


def test_the_fuzzer_would_find_a_fault(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        f"import sys\nsys.path.insert(0, {str(HERE)!r})\nimport readers\n"
        "readers.READERS['mixes'] = lambda data: data[10]\nreaders.run_once('mixes', b'')\n"
    )
    done = subprocess.run([sys.executable, str(tmp_path / "broken.py")], capture_output=True, text=True, check=False)
    assert "IndexError" in done.stderr
