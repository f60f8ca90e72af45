"""The axes that a run was swept along, found in its rows: whichever setting has several values, all else alike.

An axis's values stand in the column ``value``; what was held beside it stands in the other columns, that of the axis
itself being empty. So a grid of two axes is one sweep along each at every value of the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import polars as pl

from phaselaw.laws.summary import BUDGET

AXES = {"gen_tokens": BUDGET, "batch_size": "batch_size", "prompt_tokens": "scenario", "threads": "threads"}
"""Each axis and the column that it varies. (Clients have tables of their own: `phaselaw.laws.concurrency`.)"""

HELD = ["backend", "backend_kind", "batch_size", BUDGET, "scenario", "threads"]
"""What tells one setting from another, beside the model and the phase."""

ALL = "__all__"
"""The ``scenario`` of what stands for all prompts together."""

_PROMPTS = r"^prompt_(\d+)$"
"""How the scenarios of a ``prompt_tokens`` axis are named (`phaselaw.study.file`)."""

_THREADS = r"_threads(\d+)$"
"""How a backend of a ``threads`` axis is named (`phaselaw.study.axes`)."""


def prompt_lengths(rows: pl.DataFrame) -> pl.DataFrame:
    """Per backend and scenario: the prompt's tokens, the median over its calls (models may count differently)."""
    length = pl.coalesce(pl.col("seq_len"), pl.col("prompt_tokens_raw") / pl.col("batch_size"))
    names = ["backend", "scenario"]
    prefills = rows.filter(pl.col("mode") == "prefill").select(
        *(pl.col(name).cast(pl.Categorical) for name in names), length.alias("prompt_tokens")
    )
    medians = prefills.drop_nulls("prompt_tokens").group_by(names).agg(pl.col("prompt_tokens").median())
    return medians.with_columns(pl.col(names).cast(pl.String)).sort("backend", "prompt_tokens")


def of_prompts(table: pl.DataFrame, *, axis: str) -> pl.DataFrame:
    """The rows that a sweep along ``axis`` is about: those of all prompts together, or those of single prompts.

    Single ones where prompts are the axis, or where their lengths were swept beside it: a mean over lengths that were
    chosen to differ would be a figure of no prompt at all.
    """
    of_all = pl.col("scenario") == ALL
    named = table.filter(~of_all)["scenario"].unique()
    lengths_swept = len(named) > 1 and named.str.contains(_PROMPTS).all()
    return table.filter(~of_all if axis == "prompt_tokens" or lengths_swept else of_all)


def along_axes(
    table: pl.DataFrame, lengths: pl.DataFrame, others: list[str], *, by_prompt: bool = False
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each axis that ``table`` was swept along, with its rows: ``axis``, ``value`` and `HELD` added or changed.

    ``table`` has a backend, batch size, budget and scenario in each row, ``__all__`` among the latter; ``others`` are
    the columns that tell its rows apart beside these. ``by_prompt`` takes the rows of single prompts along every axis,
    for what is told of cells alone.
    """
    for axis in AXES:
        chosen = table.filter(pl.col("scenario") != ALL) if by_prompt else of_prompts(table, axis=axis)
        swept = _swept(chosen, axis, lengths)
        keys = [name for name in HELD if name != AXES[axis]] + others
        several = swept.group_by(keys).agg(pl.col("value").n_unique().alias("n_values")).filter(pl.col("n_values") > 1)
        swept = swept.join(several.drop("n_values"), on=keys, nulls_equal=True)
        if swept.height:
            yield axis, swept.with_columns(pl.lit(axis).alias("axis")).sort([*keys, "value"])


def _swept(table: pl.DataFrame, axis: str, lengths: pl.DataFrame) -> pl.DataFrame:
    """The rows with the axis's ``value``; the axis's own column is emptied, so that it holds nothing apart."""
    number = pl.col("backend").str.extract(_THREADS).cast(pl.Float64)
    table = table.with_columns(
        number.alias("threads"), pl.col("backend").str.replace(_THREADS, "") if axis == "threads" else pl.col("backend")
    )
    if axis == "threads":
        return table.filter(pl.col("threads").is_not_null()).with_columns(
            pl.col("threads").alias("value"), pl.lit(None, dtype=pl.Float64).alias("threads")
        )
    if axis == "prompt_tokens":
        joined = table.join(lengths.select("backend", "scenario", pl.col("prompt_tokens").alias("value")),
                            on=["backend", "scenario"])  # fmt: skip
        return joined.with_columns(pl.lit(None, dtype=pl.String).alias("scenario"))
    column = AXES[axis]
    return table.with_columns(
        pl.col(column).cast(pl.Float64).alias("value"), pl.lit(None, dtype=table.schema[column]).alias(column)
    ).filter(pl.col("value").is_not_null())


def in_order(words: str) -> list[tuple[int, str]]:
    """A key that sorts words with the numbers in them by their size: 16 tokens before 128."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", words)]


def held_words(row: dict[str, object]) -> str:
    """What was held along an axis, in words: ``batch 1, 64 tokens generated, prompt short``."""
    words = []
    if row.get("batch_size") is not None:
        words.append(f"batch {row['batch_size']:g}")
    if row.get(BUDGET) is not None:
        words.append(f"{row[BUDGET]:g} tokens generated")
    scenario = row.get("scenario")
    if scenario is not None:
        of_length = re.fullmatch(_PROMPTS, str(scenario))
        one = f"prompts of {of_length[1]} tokens" if of_length else f"prompt {scenario}"
        words.append("all prompts" if scenario == ALL else one)
    if row.get("threads") is not None:
        words.append(f"{row['threads']:g} threads")
    return ", ".join(words)
