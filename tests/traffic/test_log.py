"""Request logs as people have them: other formats, times, orders, and rows that are broken."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from phaselaw.errors import AnalysisError, UsageError
from phaselaw.traffic.log import Log, Reading, Requests

SENT_AT = 1_700_158_546.680590  # 2023-11-16 18:15:46.680590 UTC


def read(path: Path, **reading: object) -> tuple[Requests, Log]:
    log = Log(path, Reading(**reading))
    [chunk] = list(log)
    return chunk, log


def written(folder: Path, text: str, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "moment",
    [
        "2023-11-16 18:15:46.6805900", "2023-11-16T18:15:46.680590Z", "2023-11-16T18:15:46.680590+00:00",
        "2023-11-16T19:15:46.680590+01:00", "2023/11/16 18:15:46.680590", "2023-11-16 18:15:46.680590 UTC",
        "1700158546.680590", "1700158546680.590", "1700158546680590", "1700158546680590000",
    ],
)  # fmt: skip
def test_a_moment_is_the_same_however_it_is_written(moment: str, tmp_path: Path) -> None:
    chunk, _ = read(written(tmp_path, f"timestamp,prompt_tokens,output_tokens\n{moment},1,2\n{moment},3,4\n"))
    assert chunk.sent_at == pytest.approx([SENT_AT, SENT_AT], abs=1e-6)


def test_zones_may_differ_from_row_to_row(tmp_path: Path) -> None:
    moments = ["2023-11-16T18:15:46Z", "2023-11-16T19:15:46+01:00", "2023-11-16 18:15:46", "2023-11-16T18:15:46Z"]
    chunk, _ = read(written(tmp_path, "timestamp\n" + "\n".join(moments) + "\n"))
    assert set(chunk.sent_at) == {1_700_158_546.0}


def test_times_from_the_logs_start_are_seconds_unless_the_log_is_mooncakes(tmp_path: Path) -> None:
    chunk, log = read(written(tmp_path, "Timestamp,Request tokens,Response tokens\n5,10,1\n45.5,20,2\n"))
    assert chunk.sent_at.tolist() == [5.0, 45.5] and "s from the log's start" in log.timestamps
    text = '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n'
    chunk, log = read(written(tmp_path, text, "trace.jsonl"))
    assert chunk.sent_at.tolist() == [27.482] and "Mooncake" in log.timestamps
    chunk, _ = read(written(tmp_path, "timestamp\n250\n"), timestamp_unit="ms")
    assert chunk.sent_at.tolist() == [0.25]


def test_json_lines_with_nested_usage_and_gzip_are_read(tmp_path: Path) -> None:
    lines = [
        {"created": 1700000000 + at, "usage": {"prompt_tokens": 10 * at, "completion_tokens": at}, "model": "m"}
        for at in range(3)
    ]
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    chunk, log = read(path)
    assert chunk.prompt_tokens.tolist() == [0, 10, 20] and chunk.output_tokens.tolist() == [0, 1, 2]
    assert log.faults.count == 0


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_a_mark_at_the_start_and_quotes_are_read(delimiter: str, tmp_path: Path) -> None:
    row = ["timestamp", "prompt", "prompt_tokens", "output_tokens"]
    values = ["2023-11-16 18:15:46", '"two\nlines"', "7", "8"]
    text = f"{chr(0xFEFF)}{delimiter.join(row)}\r\n{delimiter.join(values)}\r\nbroken\r\n"
    chunk, log = read(written(tmp_path, text))
    assert (chunk.prompt_tokens[0], chunk.output_tokens[0]) == (7, 8)
    assert log.faults.first == ["line 4: 1 columns, 4 expected"]


def test_broken_rows_are_counted_and_named_by_their_lines_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = ["1700000000,5,5", "yesterday,5,5", "1700000001,many,5", "1700000002,5,-1", ",5,5", "1700000003,6,6",
            "1700000004,nan,5", "1700000005,5,9999999999"]  # fmt: skip
    chunk, log = read(written(tmp_path, "timestamp,prompt_tokens,output_tokens\n" + "\n".join(rows) + "\n"))
    assert chunk.prompt_tokens.tolist() == [5, 6]
    assert log.faults.count == 6
    assert log.faults.first == [
        "line 3: timestamp is 'yesterday'", "line 4: prompt_tokens is 'many'", "line 5: output_tokens is '-1'",
        "line 6: timestamp is ''", "line 8: prompt_tokens is 'nan'",
    ]  # fmt: skip


def test_broken_json_lines_are_faults_too(tmp_path: Path) -> None:
    good = '{"timestamp": 1700000000, "prompt_tokens": 1, "output_tokens": 2}'
    chunk, log = read(written(tmp_path, f"{good}\n{{oops\n\n[1]\n{good}\n", "log.jsonl"))
    assert len(chunk.sent_at) == 2
    assert log.faults.first == ["line 2: no JSON object", "line 4: no JSON object"]


def test_only_one_models_requests_are_taken_where_that_is_asked(tmp_path: Path) -> None:
    path = written(tmp_path, "timestamp,model,prompt_tokens\n1700000000,a,1\n1700000001,b,2\n")
    chunk, log = read(path, model="b")
    assert chunk.prompt_tokens.tolist() == [2] and log.faults.count == 0
    with pytest.raises(UsageError, match="no column that names the model"):
        read(written(tmp_path, "timestamp\n1700000000\n"), model="b")


def test_latencies_are_seconds_and_moments_become_latencies(tmp_path: Path) -> None:
    chunk, _ = read(written(tmp_path, "timestamp,ttft_ms,latency,cold_start\n1700000000,250,2.5,true\n1700000001,,,\n"))
    assert chunk.ttft_s[0] == 0.25 and chunk.e2e_s[0] == 2.5 and chunk.cold[0] == 1
    assert np.isnan([chunk.ttft_s[1], chunk.e2e_s[1], chunk.cold[1]]).all()
    text = "startTime,completionStartTime,endTime\n2023-11-16T18:00:00Z,2023-11-16T18:00:01Z,2023-11-16T18:00:05Z\n"
    chunk, _ = read(written(tmp_path, text))
    assert (chunk.ttft_s[0], chunk.e2e_s[0]) == (1.0, 5.0)


def test_a_log_longer_than_a_chunk_keeps_its_lines(tmp_path: Path) -> None:
    n = 120_000
    rows = [f"{1_700_000_000 + at},1,1" for at in range(n)]
    rows[110_000] = "broken,1,1"
    log = Log(written(tmp_path, "timestamp,prompt_tokens,output_tokens\n" + "\n".join(rows) + "\n"), Reading())
    assert sum(len(chunk.sent_at) for chunk in log) == n - 1
    assert log.faults.first == ["line 110002: timestamp is 'broken'"]


def test_a_log_may_carry_whole_prompts(tmp_path: Path) -> None:
    long = "word " * 60_000
    chunk, log = read(written(tmp_path, f'timestamp,prompt,prompt_tokens\n1700000000,"{long}",60000\n'))
    assert chunk.prompt_tokens.tolist() == [60_000] and log.faults.count == 0


def test_what_is_no_log_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="JSON lines"):
        list(Log(written(tmp_path, "[{}]"), Reading()))
    with pytest.raises(UsageError, match="no column of timestamps"):
        list(Log(written(tmp_path, "a,b\n1,2\n"), Reading()))
    with pytest.raises(UsageError, match="no column of timestamps"):
        list(Log(written(tmp_path, ""), Reading()))
    with pytest.raises(AnalysisError, match="can't be read"):
        list(Log(tmp_path / "none.csv", Reading()))
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(gzip.compress(b"timestamp\n" + b"1700000000\n" * 9000)[:100])
    with pytest.raises(AnalysisError, match="can't be read"):
        list(Log(broken, Reading()))
