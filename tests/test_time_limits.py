"""What is waited for has an end: a server that never starts, an export whose source hangs, a lock that stays taken."""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from phaselaw.engines import llamacpp_process, permits
from phaselaw.engines.http_client import Limits
from phaselaw.errors import EngineError, NotReadyError, within
from phaselaw.files import lock
from phaselaw.ladder import build, gguf
from phaselaw.study.model import LlamacppBackend

CONFIG = {"model_type": "gpt2", "n_layer": 1, "n_embd": 2, "n_head": 1, "n_positions": 8, "vocab_size": 4}
SERVER = f"""\
#!{sys.executable}
import http.server, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/health":
            time.sleep(60)  # it says nothing
        self.send_response(HEALTH)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{{}}")

    def log_message(self, *_):
        pass

port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.mark.parametrize(
    ("health", "start_s", "why"),
    [(503, 0.5, "not healthy 0.5 s after its start"), (200, 60.0, "/props: silent for 0.3 s")],
    ids=["loads for ever", "healthy and then silent"],
)
def test_a_server_that_never_gets_ready_is_ended_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, health: int, start_s: float, why: str
) -> None:
    monkeypatch.setenv(permits.PROGRAMS, "")
    permits.allow(key_hosts=(), settings=[], programs=True)
    monkeypatch.setattr(llamacpp_process, "_QUICK", Limits(connect_s=1.0, idle_s=0.3, total_s=5.0))
    (tmp_path / "server").write_text(SERVER.replace("HEALTH", str(health)))
    (tmp_path / "server").chmod(0o755)
    keys = {"name": "s", "kind": "llamacpp", "server": str(tmp_path / "server"), "start_timeout_s": start_s}
    began = time.monotonic()
    with pytest.raises(EngineError, match=why) as told:
        llamacpp_process.started(LlamacppBackend.model_validate(keys), tmp_path / "m.gguf")
    assert told.value.kind == "timeout" and time.monotonic() - began < 50


def test_an_export_whose_weights_never_come_ends_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf", reason="exporting needs phaselaw[llamacpp]")
    monkeypatch.setattr(gguf, "LONGEST_EXPORT_S", 0.2)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    os.mkfifo(tmp_path / "model" / "model.safetensors")
    with pytest.raises(NotReadyError, match=r"exporting .*model: not done after 0\.2 s"):
        gguf.export(str(tmp_path / "model"), "f32", tmp_path / "out")
    assert not [*tmp_path.rglob("*.gguf*")]


def test_a_place_that_another_process_never_lets_go_of_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "LONGEST_WAIT_S", 0.2)
    with (tmp_path / ".model.lock").open("ab") as held:
        assert lock(held.fileno())
        with (
            pytest.raises(NotReadyError, match="another phaselaw is writing it: not done after"),
            build.one_process_at_a_time(tmp_path / "model"),
        ):
            pass


def test_a_limit_holds_where_what_it_ends_takes_it_for_a_fault_of_its_own_and_goes_with_its_block() -> None:
    with pytest.raises(NotReadyError, match="it: not done"), within(0.05, "it"):
        with suppress(Exception):
            time.sleep(60)
        time.sleep(60)
    with within(0.05, "it"):
        pass
    time.sleep(0.1)
