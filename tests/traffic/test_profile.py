"""Traffic profiles: the published hour comes out as published, and a plan can go by what was written."""

import json
from pathlib import Path

import numpy as np
import pytest

from phaselaw.errors import AnalysisError, UsageError
from phaselaw.files import write_json
from phaselaw.plan.capacity import mean_tokens
from phaselaw.traffic.log import Reading
from phaselaw.traffic.profile import load_of, read_profile, traffic_profile


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
    found = traffic_profile(reference_data / "traffic" / "azure_llm_2023_conv.csv", Reading())
    assert found["requests"] == 19_366 and found["rows_not_read"]["count"] == 0
    assert found["requests_per_s"] == pytest.approx(5.53, abs=0.005)
    assert found["peak_minute"]["over_mean"] == pytest.approx(1.53, abs=0.005)
    assert found["gap_cv"] == pytest.approx(1.09, abs=0.005)
    assert found["prompt_tokens"]["mean"] == pytest.approx(1154.7, abs=0.05)
    assert found["output_tokens"]["mean"] == pytest.approx(211.1, abs=0.05)


def test_random_arrivals_have_a_gap_cv_of_one(log: Path) -> None:
    found = traffic_profile(log, Reading())
    assert found["gap_cv"] == pytest.approx(1.0, abs=0.03)
    assert found["requests_per_s"] == pytest.approx(2.0, rel=0.05)
    assert 1.0 < found["peak_minute"]["over_mean"] < 1.5


def test_the_order_of_rows_changes_nothing(log: Path, tmp_path: Path) -> None:
    header, *rows = log.read_text().splitlines()
    shuffled = tmp_path / "shuffled.csv"
    shuffled.write_text("\n".join([header, *np.random.default_rng(0).permutation(rows)]) + "\n")
    first, again = traffic_profile(log, Reading()), traffic_profile(shuffled, Reading())
    for name in ("requests_per_s", "gap_cv", "correlation"):
        assert again[name] == pytest.approx(first[name])
    assert again["peak_minute"] == first["peak_minute"] and again["prompt_tokens"] == first["prompt_tokens"]


def test_a_plan_takes_the_rate_the_kinds_and_the_peak(log: Path, tmp_path: Path) -> None:
    document = traffic_profile(log, Reading())
    write_json(tmp_path / "profile.json", document)
    rate, mixes, peak = load_of(read_profile(tmp_path / "profile.json"), tmp_path / "profile.json")
    assert rate == document["requests_per_s"] and peak == document["peak_minute"]["over_mean"]
    assert mean_tokens(mixes) == pytest.approx(document["tokens_per_request"])


def test_less_than_a_minute_has_no_peak_minute(tmp_path: Path) -> None:
    path = tmp_path / "short.csv"
    path.write_text("timestamp,prompt_tokens,output_tokens\n1700000000,1,1\n1700000030,1,1\n")
    document = traffic_profile(path, Reading())
    assert document["peak_minute"] is None
    assert load_of(document, path)[2] == 1.0


def test_a_log_of_nothing_but_broken_rows_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_text("timestamp,prompt_tokens\nyesterday,1\nlater,2\n")
    with pytest.raises(AnalysisError, match="2 rows can't be read, such as line 2: timestamp is 'yesterday'"):
        traffic_profile(path, Reading())


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 1}', "no json"])
def test_what_is_no_profile_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"profile\.json: no traffic profile"):
        read_profile(path)


def test_a_newer_profile_is_refused(log: Path, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(traffic_profile(log, Reading()) | {"schema_version": 99}))
    with pytest.raises(UsageError, match="version 99"):
        read_profile(path)
