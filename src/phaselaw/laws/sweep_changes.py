"""Where along an axis something changes: a law's verdict, a regime, a wall, or decode's dominance; or that nothing did.

What is judged at each value changes between two of them, and those two are the interval. The decode share passes 0.9
at a budget that can be told more closely: a model's prefill costs as much as ``k`` of its decode steps, so decode is a
share ``f`` of the whole at ``f / (1 - f) x k`` tokens. ``k`` is a geometric mean over models, with a t interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws.regimes import COLD_START
from phaselaw.laws.summary import BUDGET
from phaselaw.laws.sweep_axes import ALL, AXES, HELD, along_axes, held_words, in_order
from phaselaw.laws.sweep_exponents import MOVES

DOMINANT_SHARES = (0.9, 0.95)
"""Shares of end-to-end latency at which decode dominates it (method 3), and all but is it."""

NOTHING = "nothing changes"

CLIENTS = "concurrency"
"""The axis of clients, which has tables of its own."""

PHASES = {"prefill": "prefill", "kv_decode": "decode", "e2e_kv": "end-to-end latency"}

SCHEMA: dict[str, Any] = {
    "axis": pl.String, "backend": pl.String, "backend_kind": pl.String, "held": pl.String, "mode": pl.String,
    "what": pl.String, "before": pl.String, "after": pl.String, "at": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "interval": pl.String, "said": pl.String,
}  # fmt: skip


def sweep_changes(tables: Mapping[str, pl.DataFrame], lengths: pl.DataFrame, *, level: float) -> pl.DataFrame:
    """``sweep_changes``: a row a change along an axis, or one that says that none was found, for each backend.

    ``tables`` are those of the run by name: the laws, regimes and shares that may change.
    """
    found = [
        *_of_labels(tables["exponent_by_axis"], "verdict", "the law's verdict"),
        *_regimes(tables["regimes"], lengths),
        *_walls(tables["physical_limit"], lengths),
        *_moving_exponents(tables["exponent_stability"]),
        *_dominance(tables["decode_fraction_by_model"], level),
        *_most_clients(tables["concurrency_throughput"]),
    ]
    found += _nothing(tables["exponent_by_axis"], found)
    order = {axis: index for index, axis in enumerate([*AXES, CLIENTS])}
    found.sort(
        key=lambda row: (order[row["axis"]], row["backend"], in_order(row["held"]), row["what"], str(row["mode"]))
    )
    return pl.DataFrame(found, schema=SCHEMA)


def _of_labels(swept: pl.DataFrame, label: str, what: str) -> Iterator[dict[str, Any]]:
    """Each place along an axis where a label is not what it was at the value before."""
    keys = [name for name in ("axis", *HELD, "mode", "model") if name in swept.columns]
    for key, group in swept.sort("value").group_by(keys, maintain_order=True):
        about = dict(zip(keys, key, strict=True))
        for before, after in pairwise(group.select("value", label).iter_rows()):
            if before[1] != after[1]:
                low, high = before[0], after[0]
                subject = f"{what} on {PHASES[about['mode']]}" if about.get("mode") else what
                said = f"{subject} goes from {before[1]} to {after[1]} between {low:g} and {high:g}"
                found = _row(about, what=what, before=before[1], after=after[1], low=low, high=high,
                             interval="between two measured values", said=said)  # fmt: skip
                yield found | ({"model": about["model"]} if "model" in about else {})


def _row(about: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    shared = {name: about.get(name) for name in ("axis", "backend", "backend_kind", "mode")}
    return dict.fromkeys(SCHEMA) | shared | {"held": held_words(dict(about))} | more


def _regimes(regimes: pl.DataFrame, lengths: pl.DataFrame) -> Iterator[dict[str, Any]]:
    table = regimes.filter(pl.col("regime") != COLD_START).with_columns(pl.lit(ALL).alias("scenario"))
    for _, swept in along_axes(table, lengths, []):
        yield from _of_labels(swept, "regime", "the regime")


def _walls(limits: pl.DataFrame, lengths: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Where the physical limit that cells are at becomes another; models in which it does alike share a row."""
    alike: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    of_cells = limits.filter(pl.col("wall").is_not_null())
    for _, swept in along_axes(of_cells, lengths, ["mode", "model"], by_prompt=True):
        for row in _of_labels(swept, "wall", "the wall"):
            alike.setdefault(tuple(row[name] for name in SCHEMA if name not in ("said", "model")), []).append(row)
    for rows in alike.values():
        names = ", ".join(row.pop("model") for row in rows)
        yield rows[0] | {"said": f"{rows[0]['said']} for {names}"}


def _moving_exponents(stability: pl.DataFrame) -> Iterator[dict[str, Any]]:
    for row in stability.filter(pl.col("stability") == MOVES).iter_rows(named=True):
        first, last = row["exponent_first"], row["exponent_last"]
        moved = f"{row['change_per_tenfold']:+.3f} [{row['change_ci_low']:+.3f}, {row['change_ci_high']:+.3f}]"
        said = (
            f"the exponent of {PHASES[row['mode']]} moves by {moved} for each tenfold, from {first:.3f} at "
            f"{row['value_first']:g} to {last:.3f} at {row['value_last']:g}"
        )
        yield _row(row, what="the exponent", before=f"{first:.3f}", after=f"{last:.3f}", low=row["value_first"],
                   high=row["value_last"], interval="all along the axis", said=said)  # fmt: skip


def _dominance(fractions: pl.DataFrame, level: float) -> Iterator[dict[str, Any]]:
    keys = ["backend", "backend_kind", "batch_size"]
    for key, group in fractions.filter(pl.col(BUDGET) > 0).group_by(keys, maintain_order=True):
        budgets = group[BUDGET].unique().sort().to_list()
        if len(budgets) < 2:
            continue
        about = dict(zip(keys, key, strict=True)) | {"axis": "gen_tokens", "scenario": ALL, "mode": None}
        for share in DOMINANT_SHARES:
            at, low, high = dominance_budget(group, share, level)
            inside = budgets[0] <= at <= budgets[-1]
            where = "" if inside else f", {'below' if at < budgets[0] else 'beyond'} what was measured (extrapolated)"
            interval = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
            said = f"decode passes {share:.0%} of end-to-end latency at {at:.3g}{interval} generated tokens{where}"
            basis = f"{level:.0%} over models" + ("" if inside else ", extrapolated")
            yield _row(
                about, what=f"decode's share passes {share:g}", at=at, low=low, high=high, interval=basis, said=said
            )


def dominance_budget(fractions: pl.DataFrame, share: float, level: float) -> tuple[float, float | None, float | None]:
    """The decode budget at which decode is so large a share, for the geometric mean model, with its t interval."""
    ratio = (1 / pl.col("decode_fraction") - 1) * pl.col(BUDGET)
    logs = fractions.group_by("model").agg(ratio.log().mean().alias("log"))["log"].to_numpy()
    middle = float(logs.mean()) + float(np.log(share / (1 - share)))
    if len(logs) < 2:
        return float(np.exp(middle)), None, None
    half = float(stats.t.ppf(0.5 + level / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)))
    return float(np.exp(middle)), float(np.exp(middle - half)), float(np.exp(middle + half))


def _most_clients(throughput: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Between which numbers of clients a server's output is largest, or that it still grew at the most tried."""
    keys = ["backend", "backend_kind", "model", "scenario", BUDGET]
    for key, group in throughput.sort(CLIENTS).group_by(keys, maintain_order=True):
        clients, rates = group[CLIENTS].to_list(), group["output_tokens_per_s_median"].to_list()
        best = int(np.argmax(rates))
        about = dict(zip(keys, key, strict=True)) | {"axis": CLIENTS, "mode": "kv_decode"}
        gain = f"{rates[best] / rates[0]:.2f} x one client's" if clients[0] == 1 else f"{rates[best]:.3g} tokens/s"
        if best == len(clients) - 1:
            said = f"output of {about['model']} still grows at {clients[best]} clients, the most tried: {gain}"
            yield _row(about, what=NOTHING, low=clients[0], high=clients[-1], interval="all along the axis", said=said)
            continue
        low, high = clients[max(best - 1, 0)], clients[best + 1]
        said = f"output of {about['model']} is largest between {low} and {high} clients: {gain} at {clients[best]}"
        yield _row(about, what="the largest output", at=clients[best], low=low, high=high,
                   interval="between measured values", said=said)  # fmt: skip


def _nothing(swept: pl.DataFrame, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each sweep along which nothing was found to change."""
    changed = {(row["axis"], row["backend"]) for row in found if not str(row["interval"]).endswith("extrapolated")}
    rows = []
    for key, group in swept.group_by(["axis", "backend", "backend_kind"], maintain_order=True):
        axis, backend, kind = key
        if (axis, backend) in changed:
            continue
        low, high = group["value"].to_numpy().min(), group["value"].to_numpy().max()
        said = f"no verdict, regime, wall or exponent is found to change between {low:g} and {high:g}"
        about = {"axis": axis, "backend": backend, "backend_kind": kind}
        rows.append(_row(about, what=NOTHING, low=low, high=high, interval="all along the axis", said=said))
    return rows
