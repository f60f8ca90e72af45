"""What is kept of a stream of requests: counts and sums of fixed size, however long the stream is."""

from __future__ import annotations

import math

import numpy as np

from phaselaw.errors import AnalysisError
from phaselaw.laws.regression import Floats

BIN_S = 60.0
"""Bins of the peak: minutes from the first request."""
WINDOW = 1_000_000
"""Requests held back to put them in order of time."""
MOST_BINS = 20_000_000
"""Minutes that a log may span: 38 years; more is a wrong unit."""


class Arrivals:
    """Rate, busiest minute and gaps of requests that come nearly in order of time.

    Requests up to `WINDOW` rows out of place are put in order. One further out of place still counts into the rate and
    the minutes, but the gaps are not known then, and ``late`` says how many there were.
    """

    def __init__(self, anchor: float | None = None, window: int = WINDOW) -> None:
        self._anchor, self._window = anchor, window
        self._pending: list[Floats] = []
        self._held = 0
        self._last = -math.inf
        self._gaps, self._minutes = Moments(), Counts()
        self.count, self.late = 0, 0
        self.first, self.end = math.inf, -math.inf
        self.misplaced_anchor = False
        """Whether a request came before the first minute: read again, with ``first`` as the anchor."""

    def add(self, sent_at: Floats) -> None:
        """Take a chunk of times, in seconds."""
        if not len(sent_at):
            return
        self.count += len(sent_at)
        self.first, self.end = min(self.first, float(sent_at.min())), max(self.end, float(sent_at.max()))
        self._pending.append(sent_at)
        self._held += len(sent_at)
        if self._held >= 2 * self._window:
            self._release(keep=self._window)

    def close(self) -> None:
        """Take in what was held back."""
        self._release(keep=0)

    def _release(self, keep: int) -> None:
        if not self._held:
            return
        times = np.sort(np.concatenate(self._pending), kind="stable")
        ready, rest = times[: len(times) - keep], times[len(times) - keep :]
        self._pending, self._held = [rest], len(rest)
        if self._anchor is None:
            self._anchor = float(ready[0])
        minutes = np.floor((ready - self._anchor) / BIN_S)
        if minutes[-1] >= MOST_BINS:
            years = minutes[-1] * BIN_S / 31_557_600
            raise AnalysisError(f"the log's times span {years:,.0f} years: give the unit with --timestamp-unit")
        self.misplaced_anchor |= bool(minutes[0] < 0)
        self._minutes.add(minutes[minutes >= 0])
        in_time = ready[ready >= self._last]
        self.late += len(ready) - len(in_time)
        if len(in_time):
            known = in_time if self._last == -math.inf else np.concatenate([[self._last], in_time])
            self._gaps.add(np.diff(known))
            self._last = float(in_time[-1])

    @property
    def span_s(self) -> float:
        """From the first request to the last."""
        return self.end - self.first

    @property
    def busiest(self) -> tuple[int, int]:
        """The busiest minute's number and its requests."""
        return self._minutes.commonest

    @property
    def gap_cv(self) -> float | None:
        """Standard deviation of the gaps over their mean; ``None`` where they are not known."""
        return None if self.late or self._gaps.n < 2 or not self._gaps.mean > 0 else self._gaps.sd / self._gaps.mean


class Moments:
    """Means, spreads and the correlation of streams that come side by side (Chan, Golub and LeVeque's update)."""

    def __init__(self) -> None:
        self.n = 0
        self._means: Floats = np.zeros(1)
        self._products: Floats = np.zeros((1, 1))

    def add(self, *streams: Floats) -> None:
        """Take a chunk of each stream."""
        values = np.stack(streams)
        n = values.shape[1]
        if not n:
            return
        means = values.mean(axis=1)
        centred = values - means[:, None]
        step, total = means - self._means, self.n + n
        self._products = self._products + centred @ centred.T + np.outer(step, step) * self.n * n / total
        self._means = self._means + step * n / total
        self.n = total

    @property
    def mean(self) -> float:
        """The first stream's mean."""
        return float(self._means[0])

    @property
    def sd(self) -> float:
        """Standard deviation of the first stream, of the values themselves (n, not n - 1)."""
        return math.sqrt(self._products[0, 0] / self.n) if self.n else math.nan

    @property
    def correlation(self) -> float | None:
        """Pearson's, of two streams; ``None`` where one of the two does not vary."""
        spread = math.sqrt(self._products[0, 0] * self._products[1, 1])
        return float(self._products[0, 1] / spread) if spread > 0 else None


class Counts:
    """The exact distribution of token counts: one counter a value, as far as values go."""

    def __init__(self) -> None:
        self._counts = np.zeros(1024, dtype=np.int64)

    def add(self, values: Floats) -> None:
        """Take a chunk of counts, 0 or more."""
        counts = np.bincount(values.astype(np.int64))
        if len(counts) > len(self._counts):
            self._counts = np.pad(self._counts, (0, len(counts)))
        self._counts[: len(counts)] += counts

    @property
    def n(self) -> int:
        """Values taken."""
        return int(self._counts.sum())

    @property
    def mean(self) -> float:
        """Their mean."""
        return float(self._counts @ np.arange(len(self._counts))) / self.n

    @property
    def sd(self) -> float:
        """Their standard deviation."""
        return math.sqrt(float(self._counts @ (np.arange(len(self._counts)) - self.mean) ** 2) / self.n)

    def quantile(self, share: float) -> int:
        """The least value that so large a share of all do not exceed."""
        return int(np.searchsorted(np.cumsum(self._counts), math.ceil(share * self.n) or 1))

    @property
    def commonest(self) -> tuple[int, int]:
        """The value that is taken most often, the least of several, and how often."""
        value = int(self._counts.argmax())
        return value, int(self._counts[value])

    @property
    def largest(self) -> int:
        """The largest value."""
        return int(np.flatnonzero(self._counts)[-1])


class Kinds:
    """Requests by the powers of two of their lengths: a count and the mean lengths of each kind."""

    _SIZE = 24

    def __init__(self) -> None:
        self._sums = np.zeros((3, self._SIZE**2))
        """Of each kind: requests, prompt tokens, output tokens."""

    def add(self, prompt_tokens: Floats, output_tokens: Floats) -> None:
        """Take a chunk of requests."""
        at = self._power(prompt_tokens) * self._SIZE + self._power(output_tokens)
        for sums, weights in zip(self._sums, (None, prompt_tokens, output_tokens), strict=True):
            sums += np.bincount(at, weights, minlength=self._SIZE**2)

    def _power(self, values: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """0 for no token, else 1 + the power of two."""
        powers = np.where(values < 1, 0, 1 + np.floor(np.log2(np.maximum(values, 1))))
        return np.minimum(powers, self._SIZE - 1).astype(np.int64)

    def rows(self) -> list[dict[str, float]]:
        """Each kind that occurred: its share of all requests and the mean of its lengths."""
        total = self._sums[0].sum()
        return [
            {"share": count / total, "prompt_tokens": prompt / count, "output_tokens": output / count}
            for count, prompt, output in self._sums.T.tolist()
            if count
        ]


class LogQuantiles:
    """Quantiles of positive values, each to within 1 %: counters on a log scale (Masson et al., DDSketch, 2019)."""

    _STEP = math.log(1.02)
    _LEAST = 1e-6
    """In seconds: a microsecond."""
    _MOST = 1399
    """The last counter, at a million seconds."""

    def __init__(self) -> None:
        self._counts = Counts()

    def add(self, values: Floats) -> None:
        """Take a chunk; what is smaller or larger than the scale counts at its end."""
        at = np.floor(np.log(np.maximum(values, self._LEAST) / self._LEAST) / self._STEP)
        self._counts.add(np.minimum(at, self._MOST))

    def quantile(self, share: float) -> float | None:
        """The quantile, to within 1 %; ``None`` of nothing."""
        if not self._counts.n:
            return None
        return float(self._LEAST * math.exp((self._counts.quantile(share) + 0.5) * self._STEP))
