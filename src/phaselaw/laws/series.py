"""Series: the models of one law in ascending order of parameters, many laws of one length side by side.

A fit, a bootstrap or a rank correlation then is matrix arithmetic over all laws that have the same number of models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phaselaw.laws.regression import Floats

Indices = NDArray[np.int64]


def floats(table: pl.DataFrame, column: str) -> Floats:
    """A column as floats; missing is NaN."""
    found: Floats = table[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """Points grouped by ``keys`` (one row a series), each series' points in ascending order of parameters."""

    keys: pl.DataFrame
    points: pl.DataFrame
    """All points, series after series."""
    starts: Indices
    lengths: Indices

    @classmethod
    def of(cls, points: pl.DataFrame, keys: Sequence[str], *, by_name: bool = False) -> Series:
        """Series of the points that have a parameter count and a positive ``latency``.

        ``by_name`` puts a series' models in the order of their names instead.
        """
        by_size = ["params_millions_effective", "model", "model_kind"]
        sound = pl.col("params_millions_effective").is_finite() & (pl.col("params_millions_effective") > 0)
        ordered = points.filter(sound & pl.col("latency").is_finite() & (pl.col("latency") > 0)).sort(
            [*keys, *(["model", *by_size] if by_name else by_size)]
        )
        counted = ordered.group_by(list(keys), maintain_order=True).agg(pl.len().alias("__n"))
        lengths = counted["__n"].cast(pl.Int64).to_numpy()
        return cls(keys=counted.drop("__n"), points=ordered, starts=np.cumsum(lengths) - lengths, lengths=lengths)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
        """Each series: its keys by name, and its points."""
        for key, start, n in zip(self.keys.iter_rows(named=True), self.starts, self.lengths, strict=True):
            yield key, self.points.slice(int(start), int(n))

    def by_length(self) -> Iterator[tuple[Indices, Indices]]:
        """For each length: the series' numbers, of shape (k,), and their points' numbers, of shape (k, length)."""
        for n in np.unique(self.lengths):
            which = np.flatnonzero(self.lengths == n)
            yield which, self.starts[which][:, None] + np.arange(n)

    def values(self, column: str) -> Floats:
        """A column of the points as floats; missing is NaN."""
        return floats(self.points, column)

    def blank(self) -> Floats:
        """One NaN a series: what a figure is before, and unless, it could be computed."""
        return np.full(len(self.lengths), np.nan)
