"""What is kept of a stream is what the whole stream would give, in fixed memory."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.errors import AnalysisError
from phaselaw.traffic.sketches import Arrivals, Counts, Kinds, LogQuantiles, Moments

chunked = st.lists(st.lists(st.floats(-1e6, 1e6), max_size=20), min_size=1, max_size=6)


def arrivals(times: np.ndarray, chunk: int = 97, window: int = 500, anchor: float | None = None) -> Arrivals:
    found = Arrivals(anchor, window)
    for at in range(0, len(times), chunk):
        found.add(times[at : at + chunk])
    found.close()
    return found


@given(chunks=chunked)
def test_moments_of_chunks_are_those_of_the_whole(chunks: list[list[float]]) -> None:
    kept = Moments()
    for chunk in chunks:
        kept.add(np.array(chunk))
    whole = np.array([value for chunk in chunks for value in chunk])
    if len(whole):
        assert kept.mean == pytest.approx(whole.mean(), abs=1e-6) and kept.sd == pytest.approx(whole.std(), abs=1e-5)


def test_the_correlation_of_chunks_is_that_of_the_whole() -> None:
    x, y = np.random.default_rng(0).multivariate_normal([500, 80], [[900, 400], [400, 400]], 5000).T
    kept = Moments()
    for at in range(0, 5000, 333):
        kept.add(x[at : at + 333], y[at : at + 333])
    assert kept.correlation == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
    still = Moments()
    still.add(np.ones(3), np.arange(3.0))
    assert still.correlation is None


@given(values=st.lists(st.integers(0, 5000), min_size=1, max_size=200), share=st.sampled_from([0.05, 0.5, 0.9, 1.0]))
def test_counts_give_exact_quantiles(values: list[int], share: float) -> None:
    kept = Counts()
    kept.add(np.array(values, dtype=float))
    assert kept.quantile(share) == np.quantile(values, share, method="inverted_cdf")
    assert (kept.n, kept.largest) == (len(values), max(values))
    assert kept.mean == pytest.approx(np.mean(values)) and kept.sd == pytest.approx(np.std(values))


def test_quantiles_of_times_are_within_a_hundredth() -> None:
    values = np.random.default_rng(1).lognormal(-1, 2, 50_000)
    kept = LogQuantiles()
    kept.add(values[:20_000])
    kept.add(values[20_000:])
    for share in (0.01, 0.5, 0.95, 0.999):
        exact = np.quantile(values, share, method="inverted_cdf")
        assert kept.quantile(share) == pytest.approx(exact, rel=0.011)
    assert LogQuantiles().quantile(0.5) is None


def test_rate_busiest_minute_and_gaps_are_those_of_the_sorted_log() -> None:
    times = 1.7e9 + np.cumsum(np.random.default_rng(2).gamma(0.5, 2.0, 20_000))
    found = arrivals(times)
    bins = np.bincount(((times - times[0]) // 60).astype(int))
    gaps = np.diff(times)
    assert found.busiest == (int(bins.argmax()), int(bins.max()))
    assert found.gap_cv == pytest.approx(gaps.std() / gaps.mean(), rel=1e-9)
    assert found.span_s == times[-1] - times[0] and found.count == 20_000


def test_requests_a_little_out_of_order_are_put_in_order() -> None:
    generator = np.random.default_rng(3)
    times = 1.7e9 + np.cumsum(generator.exponential(1.0, 5000))
    jumbled = times[np.argsort(np.arange(5000) + generator.uniform(0, 300, 5000))]
    ordered, found = arrivals(times), arrivals(jumbled)
    assert found.late == 0 and found.gap_cv == pytest.approx(ordered.gap_cv) and found.busiest == ordered.busiest


def test_far_out_of_order_the_gaps_are_not_told_and_the_first_minute_is_found_on_a_second_reading() -> None:
    times = 1.7e9 + np.cumsum(np.random.default_rng(4).exponential(1.0, 5000))
    found = arrivals(times[::-1])
    assert found.gap_cv is None and found.late > 0 and found.misplaced_anchor
    again = arrivals(times[::-1], anchor=found.first)
    assert not again.misplaced_anchor and again.busiest == arrivals(times).busiest


def test_a_log_that_spans_lifetimes_has_a_wrong_unit() -> None:
    with pytest.raises(AnalysisError, match="--timestamp-unit"):
        arrivals(np.array([0.0, 1e12]))


@given(
    pairs=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=1, max_size=100)
)  # fmt: skip
def test_kinds_keep_every_token(pairs: list[tuple[int, int]]) -> None:
    kept = Kinds()
    prompt, output = np.array(pairs, dtype=float).T
    kept.add(prompt, output)
    rows = kept.rows()
    assert math.fsum(row["share"] for row in rows) == pytest.approx(1)
    assert math.fsum(row["share"] * row["prompt_tokens"] for row in rows) == pytest.approx(prompt.mean())
    assert math.fsum(row["share"] * row["output_tokens"] for row in rows) == pytest.approx(output.mean())
