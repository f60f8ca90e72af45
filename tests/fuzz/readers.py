"""Every reader of what comes from outside, as a function of bytes that raises none but our own errors; and its fuzzer.

    python tests/fuzz/readers.py NAME [NAME ...] --seconds 60

fuzzes each reader in a process of its own with atheris, guided by coverage, from the small corpus of `SEEDS`. A reader
fails with an exception that is not ours, a single input of more than 10 s, or 1 GB of memory. Printed is a line a
reader: executions, CPU seconds, and the failing input where there is one.
"""

from __future__ import annotations

import argparse
import atexit
import io
import json
import logging
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing, redirect_stderr, suppress
from importlib import import_module
from pathlib import Path
from typing import Self
from unittest import mock

HERE = Path(__file__).resolve().parent
Reader = Callable[[bytes], object]
READERS: dict[str, Reader] = {}
SEEDS: dict[str, tuple[bytes, ...]] = {}
PLACE = Path(tempfile.gettempdir()) / f"phaselaw-fuzz-{os.getpid()}"
"""What a reader of files is given lies here."""
atexit.register(shutil.rmtree, PLACE, ignore_errors=True)
MODULES = (
    "engines.llamacpp", "engines.ollama", "engines.openai", "ladder.gguf", "measure.calls", "plan.memory",
    "plan.inputs", "plan.prices", "rundir.conditions", "rundir.derive", "rundir.read", "study.file", "traffic.log",
    "traffic.profile", "traffic.prometheus",
)  # fmt: skip
"""What the readers are made of."""


def reader(*seeds: bytes | str) -> Callable[[Reader], Reader]:
    """Put a reader on the list, with the inputs that fuzzing begins from."""

    def kept(read: Reader) -> Reader:
        READERS[read.__name__] = read
        SEEDS[read.__name__] = tuple(seed.encode() if isinstance(seed, str) else seed for seed in seeds)
        return read

    return kept


def run_once(name: str, data: bytes) -> None:
    """Give an input to a reader; raises what is not ours."""
    from phaselaw.errors import PhaselawError

    PLACE.mkdir(exist_ok=True)
    with suppress(PhaselawError):
        READERS[name](data)


def placed(name: str, data: bytes) -> Path:
    """A file with these bytes."""
    path = PLACE / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


CALL = (
    '{"event":"call","call_id":"a","call_idx":0,"cell":{"backend":"b","backend_kind":"ollama","model":"m","scenario":"s",'
    '"batch_size":1,"gen_tokens":4},"task_idx":0,"is_warmup":false,"warmup_idx":null,"rep":0,"status":"ok","error":null,'
    '"started_at_unix":1.0,"process_idx":0,"calls_since_process_start":0,"calls_since_model_load":0,'
    '"calls_since_shape_first_seen":0,"load_ms":null,"timing":{"prefill_ms":1.0,"kv_decode_ms":2.0,"prompt_tokens":3,'
    '"prompt_tokens_total":3,"gen_tokens_raw":4,"server":{"a":1},"served":{"sent_at_ms":1.0,"ttft_ms":1.0,"e2e_ms":9.0,'
    '"wall_ms":9.0,"connect_ms":1.0,"arrivals_ms":[1.0,2.0,9.0],"decode_step_ms":2.0,"decode_step_basis":"client"}}}\n'
)
STUDY_DATA = {
    "run_name": "t",
    "scenarios": [{"name": "s", "prompt": "Hi"}],
    "backends": [{"name": "b", "kind": "ollama"}],
    "models": [{"name": "m", "kind": "ollama"}],
}
HEADER = json.dumps(
    {"event": "header", "journal_version": 1, "run_id": "r", "argv": [], "study": STUDY_DATA, "study_sha256": "0"}
    | {"git_commit": None, "skipped": [], "created_at_unix": 1.0}
)


@reader(f"{HEADER}\n{CALL}", f"{HEADER}\n")
def journal(data: bytes) -> None:
    """A run's journal, and what derives from it."""
    from phaselaw.rundir.derive import derived
    from phaselaw.rundir.journal import JOURNAL, scan_journal

    path = placed(f"journal/{JOURNAL}", data)
    derived(path.parent, scan_journal(path))


METRICS = (
    "backend,backend_kind,model,scenario,mode,status,latency_ms,params_millions,batch_size,is_warmup\n"
    "b,hf,m,s,prefill,ok,5.0,10,1,False\nb,hf,m,s,e2e_kv,error,,1e3,2,true\n"
)


@reader(METRICS, METRICS.replace("\n", "\r\n"))
def metrics(data: bytes) -> None:
    """A ``metrics.csv``."""
    from phaselaw.rundir import read

    read.load(placed("metrics/metrics.csv", data))


MANIFEST = {
    "schema_version": 1,
    "run_id": "r",
    "status": "complete",
    "rows_expected": 6,
    "rows_present": 3,
    "study": {},
}


@reader(
    json.dumps(
        MANIFEST
        | {"rows_expected": 6, "host": {"os": "x", "gpus": [{"name": "g"}]}, "order": "rounds", "replicates": 2}
    )
)
def manifest(data: bytes) -> None:
    """A ``manifest.json`` beside sound rows."""
    from phaselaw.rundir import conditions, read

    placed("manifest/metrics.csv", METRICS.encode())
    run = read.load(placed("manifest/manifest.json", data).parent)
    conditions.differences(run.manifest, MANIFEST)
    assert run.order


@reader(
    "run_name: a\nscenarios: [{name: s, prompt: Hi}]\nbackends: [{name: b, kind: hf}]\nmodels: [{name: m, kind: hf}]\n"
)
def study(data: bytes) -> None:
    """A study file."""
    from phaselaw.study.file import load_study

    load_study(str(placed("study.yaml", data)))


def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


GGUF = (
    b"GGUF" + struct.pack("<IQQ", 3, 1, 3)
    + gguf_text("general.architecture") + struct.pack("<I", 8) + gguf_text("llama")
    + gguf_text("llama.block_count") + struct.pack("<II", 4, 2)
    + gguf_text("llama.attention.head_count_kv") + struct.pack("<IIQ2I", 9, 4, 2, 1, 1)
    + gguf_text("token_embd.weight") + struct.pack("<IQQIQ", 2, 8, 16, 0, 0)
)  # fmt: skip


@reader(GGUF)
def gguf(data: bytes) -> None:
    """A GGUF file's head, and what a model of it needs."""
    from phaselaw.plan.memory import shapes_of

    shapes_of(str(placed("m.gguf", data)), dtype=None)


CONFIG = {"model_type": "gpt2", "n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 16, "n_positions": 8}
HEAD = json.dumps({"wte.weight": {"dtype": "F32", "shape": [16, 8], "data_offsets": [0, 512]}}).encode()
WEIGHTS = struct.pack("<Q", len(HEAD)) + HEAD + bytes(512)


@reader(json.dumps(CONFIG), json.dumps(CONFIG | {"layer_types": ["full_attention", "mamba"], "sliding_window": 4}))
def model_config(data: bytes) -> None:
    """A model folder's ``config.json``."""
    from phaselaw.plan.memory import shapes_of

    placed("config/model.safetensors", WEIGHTS)
    shapes_of(str(placed("config/config.json", data).parent), dtype=None)


@reader(WEIGHTS, struct.pack("<Q", 2) + b"{}")
def safetensors(data: bytes) -> None:
    """The head of a model folder's weights."""
    from phaselaw.plan.memory import shapes_of

    placed("weights/config.json", json.dumps(CONFIG).encode())
    shapes_of(str(placed("weights/model.safetensors", data).parent), dtype=None)


TOKENIZER = json.dumps(
    {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}, "pre_tokenizer": {"type": "ByteLevel"}}
    | {"added_tokens": [{"id": 2, "content": "<|end|>", "special": True}]}
)


@reader(b"\x00" + json.dumps(CONFIG | {"bos_token_id": 0, "eos_token_id": 0}).encode(), b"\x01" + TOKENIZER.encode())
def gpt2_folder(data: bytes) -> None:
    """A GPT-2 folder that is exported: its config (first byte even) or its tokenizer."""
    from phaselaw.ladder.gguf import export

    config, tokenizer = json.dumps(CONFIG | {"bos_token_id": 0, "eos_token_id": 0}).encode(), TOKENIZER.encode()
    config, tokenizer = (data[1:], tokenizer) if data[:1] < b"\x01" else (config, data[1:])
    placed("gpt2/model.safetensors", WEIGHTS)
    placed("gpt2/tokenizer.json", tokenizer)
    export(str(placed("gpt2/config.json", config).parent), "f32", PLACE / "exported")


class _Said:
    """What `phaselaw.engines.served.stream` asks of a server, which says these bytes."""

    url, sent_ns, connect_ms, framed = "http://fuzz", 0, 0.0, True

    def __init__(self, data: bytes) -> None:
        from phaselaw.engines.http_client import LIMITS, Line

        self.limits, self._lines = LIMITS, [Line(at, line) for at, line in enumerate(data.split(b"\n"), start=1)]

    def open(self, *_: object, **__: object) -> _Said:
        return self

    def raise_for_status(self) -> None:
        pass

    def lines(self) -> list[object]:
        return list(self._lines)

    def __enter__(self) -> _Said:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def streamed(data: bytes, read: object) -> None:
    """A reply to a call of 4 tokens, as the call is kept."""
    from phaselaw.engines import served
    from phaselaw.measure.calls import _keepable
    from phaselaw.records import Request

    asked = Request(prompt="", prompt_tokens=None, gen_tokens=4, batch_size=1, study_seed=0, seed=0, round=0)
    reply = served.stream(_Said(data), "/", {}, asked, read)
    _keepable(served.client_timing(reply, "a prompt", 4, head_cached=False), "timing")


@reader('{"response":"a"}\n{"response":"b","done":true,"eval_count":2,"eval_duration":5,"prompt_eval_count":3}\n')
def ollama_stream(data: bytes) -> None:
    """What Ollama streams."""
    from phaselaw.engines.ollama import read_stream

    streamed(data, read_stream)


@reader(
    'data: {"content":"a","tokens":[1],"tokens_predicted":1}\n\ndata: {"content":"","stop":true,"tokens":[2],'
    '"timings":{"predicted_n":2,"predicted_ms":3.0,"prompt_n":1,"prompt_ms":2.0,"cache_n":0}}\n\n'
)
def llamacpp_stream(data: bytes) -> None:
    """What llama-server streams."""
    from phaselaw.engines.llamacpp import read_stream

    streamed(data, read_stream)


@reader(
    'data: {"choices":[{"text":"a","finish_reason":null}]}\n\ndata: {"choices":[{"delta":{"content":"b"},'
    '"finish_reason":"length"}],"usage":{"completion_tokens":2,"prompt_tokens":3,"total_tokens":5}}\n\ndata: [DONE]\n'
)
def openai_stream(data: bytes) -> None:
    """What a server that speaks OpenAI's protocol streams."""
    from phaselaw.engines.openai import read_stream

    streamed(data, read_stream)


@reader(
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://[x]/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nRetry-After: nan\r\n\r\n{\"error\":{\"message\":\"x\"}}",
)  # fmt: skip
def http_reply(data: bytes) -> None:
    """What a server sends back, redirects to itself included."""
    import http.client
    import socket

    from phaselaw.engines import http_client

    def connected(_: object, url: str, *__: object) -> http.client.HTTPConnection:
        http_client._origin(url)
        ours, theirs = socket.socketpair()
        theirs.sendall(data[:100_000])
        theirs.close()
        connection = http.client.HTTPConnection("fuzz")
        connection.sock = ours
        return connection

    with (
        # Only here: tests run in this process, too.
        mock.patch.object(http_client.HttpClient, "_connected", connected),
        closing(http_client.HttpClient("http://fuzz", limits=http_client.QUICK)) as client,
    ):
        client.json("GET", "/x")


@reader("cloud,gpu type,gpus,gpu ram,on-demand,per-gpu,date\na,A100,8,640GB,$32.8,4.1,2025-01-02\n")
def price_list(data: bytes) -> None:
    """A price list."""
    from phaselaw.plan.prices import read_offers

    read_offers(placed("prices.csv", data))


@reader("model,success_rate,n\nm,0.9,100\n")
def success_rates(data: bytes) -> None:
    """A table of success rates."""
    from phaselaw.plan.inputs import read_success_rates

    read_success_rates(placed("rates.csv", data), {"m"})


@reader("name,prompt_tokens,output_tokens,share\nchat,100,20,0.5\n")
def mixes(data: bytes) -> None:
    """A table of kinds of requests."""
    from phaselaw.plan.inputs import read_mixes

    read_mixes(placed("mixes.csv", data))


@reader(
    '# TYPE vllm:prompt_tokens counter\nvllm:prompt_tokens_total{model_name="m"} 5\nvllm:generation_tokens_total 7\n'
    'vllm:e2e_request_latency_seconds_bucket{le="0.5"} 1\nvllm:e2e_request_latency_seconds_bucket{le="+Inf"} 2\n'
)
def prometheus_page(data: bytes) -> None:
    """An engine's Prometheus page."""
    from phaselaw.traffic.prometheus import parse, scrape_profile

    scrape_profile(parse(data.decode("utf-8", "replace")), now=1e9)


PROFILE = {"schema_version": 2, "requests_per_s": 2.0, "tokens_per_request": 5.0, "doubts": [], "gap_cv": 1.0}
PROFILE |= {"kinds": [{"share": 1.0, "prompt_tokens": 3.0, "output_tokens": 2.0}], "peak_minute": {"over_mean": 2.0}}


@reader(json.dumps(PROFILE), json.dumps(PROFILE | {"schema_version": 1}))
def traffic_profile(data: bytes) -> None:
    """A traffic profile that a plan is made from."""
    from phaselaw.traffic.profile import doubts_of, load_of, read_profile

    path = placed("profile.json", data)
    document = read_profile(path)
    doubts_of(document)
    load_of(document, path)


@reader(
    "timestamp,prompt_tokens,output_tokens\n2024-01-01 00:00:00,5,6\n2024-01-01 00:00:02,7,8\n",
    '{"timestamp": 1700000000.5, "prompt_tokens": 5, "output_tokens": 6}\n{"timestamp": 1700000001}\n',
)
def request_log(data: bytes) -> None:
    """A request log."""
    from phaselaw.traffic import log, profile

    profile.traffic_profile([placed("requests.log", data)], log.Reading())


# --- fuzzing ---


def fuzz_here(name: str, seconds: float, corpus: Path) -> None:
    """Fuzz one reader in this process, which ends with it."""
    import atheris

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with atheris.instrument_imports(include=["phaselaw"], enable_loader_override=False):
        for seed in SEEDS[name]:
            run_once(name, seed)
    limits = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=65536", f"-max_total_time={max(1, round(seconds))}"]
    limits.append("-seed=17")  # as the last run went: a find is then of the change that meets it
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={corpus}/", str(corpus)], lambda data: run_once(name, data))
    atheris.Fuzz()


def serve(modules: Sequence[str]) -> None:
    """Import what the readers read with, instrumented, once; then fork a fuzzer of each that standard input names.

    Nothing is read before a fork: the threads that polars starts would be lacking after it.
    """
    import atheris

    told = redirect_stderr(io.StringIO())  # each module's name
    with told, atheris.instrument_imports(include=["phaselaw"], enable_loader_override=False):
        for module in modules:
            import_module(f"phaselaw.{module}")
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            with Path(asked["said"]).open("wb") as said:
                for descriptor in (1, 2):
                    os.dup2(said.fileno(), descriptor)
            fuzz_here(asked["name"], asked["seconds"], Path(asked["corpus"]))
        _, status, used = os.wait4(pid, 0)
        ended = {"code": os.waitstatus_to_exitcode(status), "cpu_s": round(used.ru_utime + used.ru_stime, 1)}
        print(json.dumps(ended), flush=True)


class Fuzzers:
    """Fuzzers, each in a process of its own, forked from one that has done their imports."""

    def __init__(self, modules: Sequence[str] = MODULES) -> None:
        """``modules`` are what they read with."""
        self._modules = modules

    def __enter__(self) -> Self:
        self._place = tempfile.TemporaryDirectory()
        # A shell forks it: what this process starts itself would count this process's peak memory as its own.
        command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, str(HERE / "readers.py"), *self._modules]
        command.append("--serve")
        environment = os.environ | {"TMPDIR": self._place.name}
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()
        self._place.cleanup()

    def fuzzed(self, name: str, seconds: float) -> dict[str, object]:
        """Fuzz one reader: executions, CPU seconds, and what failed."""
        assert self._server.stdin is not None and self._server.stdout is not None
        with tempfile.TemporaryDirectory(dir=self._place.name) as place:
            corpus, said = Path(place) / "corpus", Path(place) / "said"
            corpus.mkdir()
            for at, seed in enumerate(SEEDS[name]):
                (corpus / f"seed{at}").write_bytes(seed)
            asked = {"name": name, "seconds": seconds, "corpus": str(corpus), "said": str(said)}
            self._server.stdin.write(json.dumps(asked).encode() + b"\n")
            self._server.stdin.flush()
            ended = json.loads(self._server.stdout.readline())
            told = said.read_text(errors="replace")
            left = [path for path in corpus.iterdir() if path.name.startswith(("crash", "oom", "timeout"))]
            failed = left[0].read_bytes()[:400] if left else b""
        counts = re.findall(r"^(?:#|Done )(\d+)", told, re.MULTILINE)
        found = {"reader": name, "executions": int(counts[-1]) if counts else 0, "cpu_s": ended["cpu_s"]}
        return found | ({"failed": failed, "said": told[-1200:]} if ended["code"] else {})


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz, and print a line a reader; 3 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(READERS)}; all for none")
    parser.add_argument("--seconds", type=float, default=60, help="how long each")
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.corpus is not None:
        fuzz_here(args.names[0], args.seconds, args.corpus)
    if args.serve:
        serve(args.names)
        return 0
    code = 0
    with Fuzzers() as fuzzers:
        for name in args.names or READERS:
            found = fuzzers.fuzzed(name, args.seconds)
            print(*(f"{key} {value}" for key, value in found.items() if key not in ("failed", "said")), flush=True)
            if "said" in found:
                code = 3
                print(found["said"], repr(found["failed"]), sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
