"""Traffic profiles: the published hour comes out as published, and a plan can go by what was written."""

import json
from pathlib import Path

import numpy as np
import pytest

from phaselaw.errors import UsageError
from phaselaw.files import write_json
from phaselaw.plan.capacity import mean_tokens
from phaselaw.traffic.profile import doubts_of, load_of, read_profile, traffic_profile
from phaselaw.traffic.source import Reading


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two hours of random arrivals."""
    generator = np.random.default_rng(5)
    moments = 1.7e9 + np.cumsum(generator.exponential(0.5, 14_400))
    lengths = generator.integers(1, 900, (14_400, 2))
    rows = [f"{at:.3f},{p},{g}" for at, (p, g) in zip(moments, lengths, strict=True)]
    path = tmp_path / "log.csv"
    path.write_text("timestamp,prompt_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    return path


def test_azures_conversation_hour(reference_data: Path) -> None:
    found = traffic_profile([reference_data / "traffic" / "azure_llm_2023_conv.csv"], Reading())
    assert found["requests"] == 19_366 and found["rows_not_read"]["count"] == 0
    assert found["requests_per_s"] == pytest.approx(5.53, abs=0.005)
    assert found["peak_minute"]["over_mean"] == pytest.approx(1.53, abs=0.005)
    assert found["gap_cv"] == pytest.approx(1.09, abs=0.005)
    assert found["prompt_tokens"]["mean"] == pytest.approx(1154.7, abs=0.05)
    assert found["output_tokens"]["mean"] == pytest.approx(211.1, abs=0.05)


def test_random_arrivals_have_a_gap_cv_of_one(log: Path) -> None:
    found = traffic_profile([log], Reading())
    assert found["gap_cv"] == pytest.approx(1.0, abs=0.03)
    assert found["requests_per_s"] == pytest.approx(2.0, rel=0.05)
    assert 1.0 < found["peak_minute"]["over_mean"] < 1.5


def test_random_arrivals_in_whole_seconds_are_no_bursts(log: Path) -> None:
    header, *rows = log.read_text().splitlines()
    whole = [f"{row.split('.')[0]},{row.split(',', 1)[1]}" for row in rows]
    log.write_text("\n".join([header, *whole]) + "\n")
    found = traffic_profile([log], Reading())  # 2 a second: their gaps of 0 and 1 s have a CV of 1.26
    assert (found["gap_cv"], found["gap_cv_within_10_min"], found["doubts"]) == (None, None, [])
    assert found["gap_cv_unknown"].startswith("timestamps are whole seconds")


def test_the_order_of_rows_changes_nothing(log: Path, tmp_path: Path) -> None:
    header, *rows = log.read_text().splitlines()
    shuffled = tmp_path / "shuffled.csv"
    shuffled.write_text("\n".join([header, *np.random.default_rng(0).permutation(rows)]) + "\n")
    first, again = traffic_profile([log], Reading()), traffic_profile([shuffled], Reading())
    for name in ("requests_per_s", "gap_cv", "gap_cv_within_10_min", "correlation"):
        assert again[name] == pytest.approx(first[name])
    assert again["peak_minute"] == first["peak_minute"] and again["prompt_tokens"] == first["prompt_tokens"]


def test_a_plan_takes_the_rate_the_kinds_and_the_peak(log: Path, tmp_path: Path) -> None:
    document = traffic_profile([log], Reading())
    write_json(tmp_path / "profile.json", document)
    rate, mixes, peak = load_of(read_profile(tmp_path / "profile.json"), tmp_path / "profile.json")
    assert rate == document["requests_per_s"] and peak == document["peak_minute"]["over_mean"]
    assert mean_tokens(mixes) == pytest.approx(document["tokens_per_request"])


def test_less_than_a_minute_has_no_peak_minute(tmp_path: Path) -> None:
    path = tmp_path / "short.csv"
    path.write_text("timestamp,prompt_tokens,output_tokens\n1700000000,1,1\n1700000030,1,1\n")
    document = traffic_profile([path], Reading())
    assert document["peak_minute"] is None
    assert load_of(document, path)[2] == 1.0


def test_quantiles_are_numpys_linear_ones(log: Path) -> None:
    found = traffic_profile([log], Reading())["prompt_tokens"]
    lengths = np.loadtxt(log, delimiter=",", skiprows=1)[:, 1]
    shares = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "p99": 0.99}
    assert {name: found[name] for name in shares} == pytest.approx(
        {name: np.quantile(lengths, share) for name, share in shares.items()}
    )
    assert (found["mean"], found["sd"]) == pytest.approx((lengths.mean(), lengths.std()))


def arrivals(folder: Path, moments: np.ndarray) -> Path:
    path = folder / "arrivals.csv"
    rows = "\n".join(f"{moment:.4f},100,10" for moment in moments)
    path.write_text("timestamp,prompt_tokens,output_tokens\n" + rows + "\n")
    return path


def test_day_and_night_are_told_by_the_hour_and_are_no_bursts(tmp_path: Path) -> None:
    """Ten days of random arrivals, 20 times as many by day as by night."""
    generator = np.random.default_rng(3)
    start = 1_715_472_000  # a Sunday's midnight, UTC
    hours = np.arange(240)
    rates = np.where((hours % 24 >= 8) & (hours % 24 < 20), 200, 10)
    moments = np.repeat(start + 3600.0 * hours, rates) + generator.uniform(0, 3600, rates.sum())
    found = traffic_profile([arrivals(tmp_path, np.sort(moments))], Reading())
    assert found["gap_cv"] > 2 and found["gap_cv_within_10_min"] == pytest.approx(1, abs=0.1)
    assert found["doubts"] == [] and found["hours_count_from"] == "UTC"
    by_hour = {row["hour"]: row["requests_per_s"] * 3600 for row in found["by_hour_of_day"]}
    assert by_hour[12] == pytest.approx(200, rel=0.01) and by_hour[3] == pytest.approx(10, rel=0.01)
    assert [row["requests"] for row in found["by_day_of_week"]] == [2 * 2520, 2 * 2520, *[2520] * 4, 2 * 2520]


def test_a_quiet_head_is_told_and_the_busy_part_can_be_taken(tmp_path: Path) -> None:
    quiet, busy = np.linspace(0, 9 * 3600, 91)[:-1], 9 * 3600 + np.linspace(0, 3600, 1001)
    path = arrivals(tmp_path, 1.7e9 + np.concatenate([quiet, busy]))
    [doubt] = traffic_profile([path], Reading())["doubts"]
    assert doubt.startswith("the rate is not one rate: the first 90%") and doubt.endswith("--part 9:")
    found = traffic_profile([path], Reading(part=(9, float("inf"))))
    assert found["doubts"] == [] and found["requests_per_s"] == pytest.approx(1001 / 3600)


def test_doubtful_units_and_dates_are_told(tmp_path: Path) -> None:
    moments = 1.7e9 + np.arange(200.0)
    path = arrivals(tmp_path, moments)
    path.write_text(path.read_text().replace("output_tokens", "output_tokens,ttft").replace(",10\n", ",10,250\n"))
    [doubt] = traffic_profile([path], Reading())["doubts"]
    assert doubt.startswith("ttft: a median of 4.2 min") and "--duration-unit" in doubt
    assert traffic_profile([path], Reading(duration_unit="ms"))["doubts"] == []
    path.write_text(path.read_text().replace("ttft", "latency").replace(",250", ",312.4"))  # of 10 tokens each
    [doubt] = traffic_profile([path], Reading())["doubts"]
    assert doubt.startswith("latency: a median of 31.2 s an output token as seconds")
    gap = traffic_profile([arrivals(tmp_path, np.concatenate([moments, [1.8e9]]))], Reading())["doubts"]
    assert any("one gap of 1157.4 days is most of the log" in each for each in gap)
    fast = traffic_profile([arrivals(tmp_path, np.arange(200.0) / 1e4)], Reading(timestamp_unit="s"))["doubts"]
    assert any("requests/s are more than most services see" in each for each in fast)


def test_a_part_that_is_in_the_log_twice_is_told_and_requests_of_one_length_are_not(tmp_path: Path) -> None:
    moments = 1.7e9 + np.cumsum(np.random.default_rng(3).exponential(2.0, 400)).round(3)
    rows = [f"{at},{100 + n % 7},{20 + n % 5}\n" for n, at in enumerate(moments)]
    path = tmp_path / "log.csv"
    path.write_text("timestamp,prompt_tokens,output_tokens\n" + "".join(rows + rows[:50]))
    [doubt] = traffic_profile([path], Reading())["doubts"]
    assert doubt.startswith("50 of 450 rows have the time and lengths of another")
    alike = traffic_profile([arrivals(tmp_path, np.floor(moments / 10) * 10)], Reading())
    assert alike["doubts"] == [] and alike["rows_said_twice"] == 0


def test_a_rate_of_few_requests_is_in_doubt_by_the_exact_interval_of_a_poisson_mean(tmp_path: Path) -> None:
    [doubt] = traffic_profile([arrivals(tmp_path, 1.7e9 + np.arange(10.0))], Reading())["doubts"]
    assert "as long a time may bring 4.8 to 18.4" in doubt  # Garwood 1936, of 10


def test_a_load_without_a_known_peak_says_so_in_its_plan(tmp_path: Path) -> None:
    short, long = (traffic_profile([arrivals(tmp_path, 1.7e9 + np.arange(n))], Reading()) for n in (50.0, 90.0))
    assert "traffic: no peak is known: without --burst a plan carries the mean load alone" in doubts_of(short)
    assert not any("no peak" in doubt for doubt in doubts_of(long))


def test_what_a_plan_must_say_travels_in_the_profile(log: Path) -> None:
    log.write_text(log.read_text() + "broken,1,1\n")
    told = doubts_of(traffic_profile([log], Reading()))
    assert "1 of 14,401 rows" in told[0] and told[-1].endswith(" min of traffic, taken as a month")
    old = {"schema_version": 1, "rows_not_read": {"count": 3, "first": []}, "span_s": 7000.0}
    assert "3 rows of the log could not be read" in doubts_of(old)[0]


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 1}', "no json"])
def test_what_is_no_profile_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"profile\.json: no traffic profile"):
        read_profile(path)


def test_a_profile_of_before_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    old = {
        "schema_version": 1, "source": "request log", "requests": 19366, "requests_per_s": 5.53, "span_s": 3501.7,
        "rows_not_read": {"count": 0, "first": []}, "peak_minute": {"requests_per_s": 8.45, "over_mean": 1.53},
        "kinds": [{"share": 1.0, "prompt_tokens": 1154.7, "output_tokens": 211.1}], "tokens_per_request": 1365.8,
    }  # fmt: skip
    path.write_text(json.dumps(old))
    rate, mixes, peak = load_of(read_profile(path), path)
    assert (rate, peak, mean_tokens(mixes)) == (5.53, 1.53, pytest.approx(1365.8))


def test_a_newer_profile_is_refused(log: Path, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(traffic_profile([log], Reading()) | {"schema_version": 99}))
    with pytest.raises(UsageError, match="version 99"):
        read_profile(path)
