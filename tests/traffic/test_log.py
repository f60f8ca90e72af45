"""What could be read of a log and what could not: no row is lost without a word, and too many refuse the log."""

import contextlib
import gzip
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phaselaw.errors import AnalysisError, UsageError
from phaselaw.traffic.log import opened
from phaselaw.traffic.profile import traffic_profile
from phaselaw.traffic.source import Reading

SENT_AT = 1_700_158_546.680590  # 2023-11-16 18:15:46.680590 UTC
HEAD = "timestamp,prompt_tokens,output_tokens\n"


def read(path: Path, **reading: Any) -> tuple[list[tuple[Any, ...]], Any]:
    """Each request's time and lengths, and the log."""
    with opened([path], Reading(**reading)) as log:
        return log.ask("SELECT sent, prompt, output FROM requests ORDER BY sent, prompt"), log


def written(folder: Path, text: str | bytes, name: str = "log") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def good(n: int) -> list[str]:
    return [f"{1_700_000_000 + at},{at + 1},{at % 7 + 1}" for at in range(n)]


@pytest.mark.parametrize(
    "moment",
    [
        "2023-11-16 18:15:46.6805900", "2023-11-16T18:15:46.680590Z", "2023-11-16T19:15:46.680590+01:00",
        "2023/11/16 18:15:46.680590", "2023-11-16 18:15:46.680590 UTC", "2023-11-17 02:15:46.680590 +0800",
        "1700158546.680590", "1700158546680.590", "1700158546680590", "1700158546680590000",
    ],
)  # fmt: skip
def test_a_moment_is_the_same_however_it_is_written(moment: str, tmp_path: Path) -> None:
    rows, _ = read(written(tmp_path, f"{HEAD}{moment},1,2\n{moment},3,4\n"))
    assert [sent for sent, _, _ in rows] == pytest.approx([SENT_AT, SENT_AT], abs=1e-6)


def test_zones_may_differ_from_row_to_row(tmp_path: Path) -> None:
    moments = ["2023-11-16T18:15:46Z", "2023-11-16T19:15:46+01:00", "2023-11-16 18:15:46", "2023-11-16T18:15:46Z"]
    rows, _ = read(written(tmp_path, HEAD + "".join(f"{moment},1,1\n" for moment in moments)))
    assert {sent for sent, _, _ in rows} == {1_700_158_546.0}


BROKEN = {
    "yesterday,5,5": "timestamp is 'yesterday'",
    "1700000001,many,5": "prompt_tokens is 'many'",
    "1700000002,5,-1": "output_tokens is '-1'",
    ",5,5": "timestamp is ''",
    "1700000004,nan,5": "prompt_tokens is 'nan'",
    "1700000005,5,9999999999": "output_tokens is '9999999999'",
    "170000000,5,5": "timestamp is '170000000'",
    "1700000006,5": "2 columns, 3 expected",
    "1700000006,5,5,5": "4 columns, more than 3",
    '1700000007,"5,5': "an open quote, or a cell of many lines",
    "1700000008,5.5,5": "prompt_tokens is '5.5'",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_row_is_counted_and_told_with_its_line_and_the_rest_is_read(broken: str, tmp_path: Path) -> None:
    lines = good(200)
    lines.insert(150, broken)
    lines.insert(3, "")
    rows, log = read(written(tmp_path, HEAD + "\n".join(lines) + "\n"))
    assert len(rows) == 200 and log.rows["not_read"] == 1
    assert log.faults == [f"line 153: {BROKEN[broken]}"] and "1 of 201 rows" in log.doubts[0]


def test_broken_json_lines_are_told_too_whichever_they_are(tmp_path: Path) -> None:
    lines = [json.dumps({"timestamp": 1_700_000_000 + at, "isl": 1, "osl": 2}) for at in range(500)]
    lines[0], lines[7], lines[9] = ("{oops", "[1]", '{"timestamp": 1700000003, "isl": [1, 2], "osl": 2}')
    rows, log = read(written(tmp_path, "\n".join(lines)))
    assert len(rows) == 497
    first = ["line 1: no JSON object", "line 8: no JSON object", "line 10: isl is '[1,2]'"]
    assert log.faults == first


def test_a_field_that_only_a_late_record_has_counts(tmp_path: Path) -> None:
    plain = {"input_tokens": 10, "output_tokens": 2}
    usage = [*[plain] * 1400, plain | {"cache_read_input_tokens": 90}]
    lines = [json.dumps({"timestamp": 1_700_000_000 + at, "usage": each}) for at, each in enumerate(usage)]
    rows, log = read(written(tmp_path, "\n".join([*lines, '{"error": "timeout"}'])))
    assert log.rows == {"served": 1401, "failed": 1} and max(prompt for _, prompt, _ in rows) == 100


def test_bytes_that_are_no_text_are_told_with_their_line(tmp_path: Path) -> None:
    lines = [line.encode() for line in good(300)]
    lines[99], lines[199] = b"\xff\xfe,3,3", b"broken,1,1"
    rows, log = read(written(tmp_path, HEAD.encode() + b"\n".join(lines)))
    assert len(rows) == 298 and log.rows["not_read"] == 2
    assert log.faults == ["line 101: not UTF-8 text, or longer than 16 MiB", "line 201: timestamp is 'broken'"]


def test_too_many_broken_rows_refuse_the_log_unless_they_are_allowed(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "\n".join([*good(100), "x,1,1", "y,1,1"]))
    with pytest.raises(AnalysisError, match=r"2 of 102 rows \(1.96%\) .*line 102: timestamp is 'x'.*--allow-dropped"):
        read(path)
    rows, log = read(path, allow_dropped=True)
    assert len(rows) == 100 and "2 of 102 rows" in log.doubts[0]


@pytest.mark.parametrize("pattern", ["1700000000,1x{n}00,5", "1700000000,1,{n}05,5"])
def test_few_broken_rows_with_a_pattern_refuse_it_too(pattern: str, tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "\n".join([*good(1000), *(pattern.format(n=n) for n in (2, 3, 4))]))
    with pytest.raises(AnalysisError, match="they have a pattern: 3 like"):
        read(path)


DAMAGE = st.sampled_from(['"', "\n", ",", "x", "", "\x00", "\r", "\\", "{", "-", "9" * 8, " ", "\x1c\x07\x1d\x0e"])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 199), st.integers(0, 20), DAMAGE), max_size=6), st.booleans())
@example([(0, 0, "\x1c\x07\x1d\x0e")], False)  # once the mark that lines were cut at
def test_no_damage_hides_a_row(damage: list[tuple[int, int, str]], as_json: bool) -> None:
    """Rows that were not touched are all counted, and every other line that holds anything is counted or told."""
    lines = good(200)
    if as_json:
        keys = ("timestamp", "prompt_tokens", "output_tokens")
        cells = [[f'"{key}": {cell}' for key, cell in zip(keys, line.split(","), strict=True)] for line in lines]
        lines = ["{" + ", ".join(each) + "}" for each in cells]
    for row, at, put in damage:
        lines[row] = lines[row][:at] + put + lines[row][at + 1 :]
    text = ("" if as_json else HEAD) + "\n".join(lines) + "\n"
    untouched = set(range(200)) - {row for row, _, _ in damage}
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(UsageError):
        path = written(Path(folder), text)
        rows, log = read(path, allow_dropped=True)
        assert {1_700_000_000.0 + at for at in untouched} <= {sent for sent, _, _ in rows}
        held = [line for line in text.replace("\r", "\n").split("\n") if line.strip(" ")]
        assert sum(log.rows.values()) == len(held) - (not as_json)
        told = traffic_profile([path], Reading(allow_dropped=True))
        assert told["rows_not_read"]["count"] == log.rows["not_read"]
        assert bool(told["doubts"] and "can't be read" in told["doubts"][0]) == bool(log.rows["not_read"])


def test_several_logs_are_one_and_standard_input_is_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = good(10)
    first, more = (
        written(tmp_path, HEAD + "\n".join(part), name) for part, name in ((lines[:6], "a"), (lines[6:], "b"))
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(first.read_bytes())))
    for paths in ([first, more], ["-", more]):
        found = traffic_profile(paths, Reading())
        assert found["requests"] == 10 and found["span_s"] == 9
    with pytest.raises(UsageError, match="given twice"):
        traffic_profile([first, first], Reading())
    own = written(tmp_path, HEAD + "0.5,1,1\n2.5,1,1\n", "own")
    with pytest.raises(UsageError, match="from their own start"):
        traffic_profile([own, first], Reading())


def test_a_path_is_never_a_pattern_and_a_name_never_a_statement(tmp_path: Path) -> None:
    text = HEAD.replace("timestamp", "a'); DROP TABLE rows0; --") + "\n".join(good(5))
    written(tmp_path, HEAD + "\n".join(good(9)), "a")
    path = written(tmp_path, text, "[a]*'?")
    rows, _ = read(path, columns={"timestamp": "a'); DROP TABLE rows0; --"})
    assert len(rows) == 5


def test_the_database_reaches_nothing_but_the_log_and_shows_nothing(tmp_path: Path) -> None:
    other = written(tmp_path, HEAD, "other")
    with opened([written(tmp_path, HEAD + "\n".join(good(5)))], Reading()) as log:
        assert log.ask("SELECT current_setting('enable_progress_bar')") == [(False,)]
        for outside in (str(other), "http://127.0.0.1:1/log.csv"):
            with pytest.raises(AnalysisError, match="Permission Error"):
                log.ask("SELECT * FROM read_csv($path)", {"path": outside})
        with pytest.raises(AnalysisError, match="locked"):
            log.ask("SET enable_external_access = true")


def test_parquet_is_read_with_its_types_and_structures(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    rows = "SELECT TIMESTAMPTZ '2024-05-12 10:00:00+00' + INTERVAL (i) SECOND AS created, {'input \"tokens\"': i + 1, "
    rows += "'output_tokens': 2.0} AS usage, i % 5 > 0 AS success FROM range(100) t(i)"
    duckdb.connect().execute(f"COPY ({rows}) TO '{tmp_path / 'log.parquet'}' (FORMAT parquet)")
    found, log = read(tmp_path / "log.parquet")
    assert log.rows == {"served": 80, "failed": 20} and found[0] == (1_715_508_001.0, 2, 2)


def test_zstd_is_read_and_refused_where_it_was_cut(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    query = "SELECT 1700000000 + i AS timestamp, 1 AS isl, 2 AS osl FROM range(50) t(i)"
    duckdb.connect().execute(f"COPY ({query}) TO '{tmp_path / 'log.zst'}' (FORMAT csv, COMPRESSION zstd)")
    rows, _ = read(tmp_path / "log.zst")
    assert len(rows) == 50
    with pytest.raises(AnalysisError, match="zstd data ends before its end"):
        read(written(tmp_path, (tmp_path / "log.zst").read_bytes()[:-9], "cut"))


def test_only_a_part_of_the_log_is_taken_where_that_is_asked(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "\n".join(good(7200)))
    assert len(read(path, part=(0.5, 1.0))[0]) == 1800
    assert len(read(path, part=(1.5, float("inf")))[0]) == 1800


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(b"timestamp,isl,osl\n" + b"1700000000,1,1\n" * 9000, mtime=0)[:100], "can't be read"),
        ("[{}, {]", "can't be read"),
        (HEAD + "yesterday,1,1\nlater,2,2\n", "2 of 2 rows .* line 2: timestamp is 'yesterday'"),
        (HEAD + "1700000000,0,0\n", "no request to plan with .*1 zero tokens"),
    ],
)
def test_what_has_no_request_is_one_line(content: str | bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=told):
        traffic_profile([written(tmp_path, content)], Reading())
    with pytest.raises(AnalysisError, match="none: can't be read"):
        traffic_profile([tmp_path / "none"], Reading())
