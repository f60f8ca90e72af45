"""``phaselaw traffic``: data on stdout, notes on stderr, a profile that a plan goes by."""

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from phaselaw.cli import main


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    rows = [f"{1_700_000_000 + at},{50 + at % 7},{20 + at % 5},0.1,0.9" for at in range(300)]
    path.write_text("timestamp,prompt_tokens,output_tokens,ttft,latency\nbroken,1,1,1,1\n" + "\n".join(rows) + "\n")
    return path


def test_a_profile_is_printed_and_written_and_planned_with(log: Path, dry_run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "profile.json"
    assert main(["traffic", str(log), "--out", str(out), "--json"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document == json.loads(out.read_text())
    assert "1 of 301 rows (0.33%) can't be read, such as line 2: timestamp is 'broken'" in told.err
    assert main(["plan", str(dry_run), "--traffic", str(out), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    simulated, broken, short = plan["notes"]
    assert simulated.endswith("SIMULATED: latencies come from a stated law, nothing was measured")
    assert "traffic: 1 of 301 rows" in broken and "5 min of traffic, taken as a month" in short
    assert plan["assumptions"]["requests_per_s"] == document["requests_per_s"]
    assert plan["assumptions"]["burst"] == max(1.0, document["peak_minute"]["over_mean"])
    assert plan["assumptions"]["tokens_per_request"] == pytest.approx(document["tokens_per_request"])
    assert {row["mix"] for row in plan["request_mixes"]} == {"average"}


def test_a_person_reads_the_rate_the_lengths_and_the_latencies(log: Path, capsys) -> None:
    assert main(["traffic", str(log)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("In doubt: 1 of 301 rows")
    assert "300 requests over 5 min" in out and "requests/s on average" in out
    assert "prompt tokens" in out and "TTFT" in out and "p95" in out


def test_without_its_library_the_extra_is_named(log: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert main(["traffic", str(log)]) == 1
    assert "reading a request log needs an optional part: pip install 'phaselaw[traffic]'" in capsys.readouterr().err


def test_production_is_held_against_a_run(log: Path, dry_run: Path, capsys) -> None:
    words = ["traffic", str(log), "--against", str(dry_run)]
    assert main(words) == 2
    assert "--against-model" in capsys.readouterr().err
    assert main([*words, "--against-model", "models/gpt2-25m", "--json"]) == 0
    against = json.loads(capsys.readouterr().out)["timings"]["against"]
    assert against["law"] == "models/gpt2-25m on hf_cpu_fp32" and against["times_compared"] == 600
    log.write_text("timestamp,prompt_tokens,output_tokens\n1700000000,50,20\n1700000060,50,20\n")
    assert main([*words, "--against-model", "models/gpt2-25m"]) == 1
    assert "no warm request has a TTFT, so nothing is compared" in capsys.readouterr().err


@pytest.fixture
def engine() -> Iterator[str]:
    """A page whose counters grow with each reading: a stand-in for an engine's."""
    seen = {"requests": 0}

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen["requests"] += 10
            count = seen["requests"]
            self.send_response(200)
            self.end_headers()
            page = f"vllm:prompt_tokens_total {100 * count}\nvllm:generation_tokens_total {50 * count}\n"
            self.wfile.write(f"# TYPE x counter\n{page}vllm:request_success_total {count}\n".encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()


def test_a_page_on_the_network_is_read_twice_for_a_window(engine: str, capsys) -> None:
    assert main(["traffic", engine, "--window", "0.3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["requests"] == 10 and document["basis"] == "between two pages"
    assert 0.3 <= document["span_s"] < 5 and document["tokens_per_request"] == 150


def test_a_page_in_a_file_is_known_by_its_look(tmp_path: Path, capsys) -> None:
    page = tmp_path / "page.prom"
    page.write_text("# TYPE a counter\nllamacpp:prompt_tokens_total 10\nllamacpp:tokens_predicted_total 5\n")
    assert main(["traffic", str(page)]) == 0
    assert "averages since the engine started" in capsys.readouterr().out
    for words in ([str(page), str(page)], [str(page), "--window", "60"]):  # what it counts is not of the last minute
        assert main(["traffic", *words]) == 2
        assert "two pages go with --window" in capsys.readouterr().err


def test_a_saved_page_is_as_old_as_its_file_which_is_said(tmp_path: Path, engine: str, capsys) -> None:
    page = tmp_path / "page.prom"
    page.write_text("vllm:prompt_tokens_total 0\nvllm:request_success_total 0\nprocess_start_time_seconds 1e9\n")
    assert main(["traffic", str(page)]) == 0
    assert "In doubt: the page is taken to be as old as its file" in capsys.readouterr().out
    assert main(["traffic", str(page), engine, "--window", "3600", "--json"]) == 0  # and nobody waits an hour
    document = json.loads(capsys.readouterr().out)
    assert (document["requests"], document["span_s"], document.get("doubts")) == (10, 3600, None)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["none.csv"], 1), (["LOG", "LOG"], 2), (["LOG", "--part", "2:1"], 2), (["LOG", "--window", "0"], 2),
        (["LOG", "--window", "60"], 2),
        (["LOG", "--out", "no/where.json"], 1),
        (["LOG", "--timestamp-column", "when"], 2), (["http://127.0.0.1:1/metrics"], 1), (["LOG", "--model", "m"], 2),
        (["LOG", "--against", "none"], 1),
    ],
    ids=str,
)  # fmt: skip
def test_what_cant_be_done_is_one_line(words: list[str], code: int, log: Path, capsys) -> None:
    assert main(["traffic", *(str(log) if word == "LOG" else word for word in words)]) == code
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
