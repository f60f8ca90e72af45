"""The tables of a sweep (method 4): curves, exponents and whether they move, and where something changes.

An axis is a setting that has several values in a run while all else is alike. Its values stand in the column ``value``;
what was held beside it stands in the other columns, that of the axis itself being empty. So a grid of two axes is one
sweep along each, at every value of the other.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from scipy import special

from phaselaw import tables as col
from phaselaw.laws.decisions import COLD_START
from phaselaw.laws.rates import with_ends
from phaselaw.laws.regression import Floats, fit_line, t_half_width
from phaselaw.laws.scaling import SCALING_FITS
from phaselaw.laws.summary import MODEL
from phaselaw.laws.verdicts import LEAST_RANGE, MIN_MODELS, NARROW, TOO_FEW, word
from phaselaw.records import ALL
from phaselaw.tables import BUDGET, PHASE, SUSPECT, Row, Table, alike, grouped, like

AXES = {"gen_tokens": BUDGET, "batch_size": "batch_size", "prompt_tokens": "scenario", "threads": "threads"}
"""Each axis and the column that it varies."""
CLIENTS = "concurrency"
"""The axis of clients, which has tables of its own (`phaselaw.laws.concurrency`)."""

MOVES, NO_TREND = "moves", "no trend found"
NOTHING = "nothing changes"
DOMINANT_SHARES = (0.9, 0.95)
"""Shares of end-to-end latency from which on decode dominates it (method 3), and is nearly all of it."""
TR121_TABLES = ("decode_sweep_summary", "decode_fraction_by_model", "decode_fraction_summary")
"""The tables that TR121 has at the root of its decode sweep."""

_PROMPTS = r"^prompt_(\d+)$"
"""How the scenarios of a ``prompt_tokens`` axis are named (`phaselaw.study.file`)."""
_THREADS = r"_threads(\d+)$"
"""How a backend of a ``threads`` axis is named (`phaselaw.study.file`)."""
_HELD_WORDS = {"batch_size": "batch {:g}", BUDGET: "{:g} tokens generated", "scenario": "{}", "threads": "{:g} threads"}
_PHASES = {"prefill": "prefill", "kv_decode": "decode", "e2e_kv": "end-to-end latency"}
_NO_LAW_CHANGES = "wall (a law that could change takes models of two sizes)"
_ALONG = "all along the axis"
_NO_AXIS = "nothing was swept: one value of every axis (phaselaw sweep)"
_NO_LAW = f"{_NO_AXIS}, or no two models that differ in size"

_AXIS = col.words("axis", "axis")
_HELD = (
    col.words("backend", "setting", reads="setting"),
    col.words("backend_kind"),
    col.counted("batch_size"),
    col.counted(BUDGET),
    col.words("scenario"),
    *col.plain("threads"),
)
HELD = [column.key for column in _HELD]
"""What tells one setting from another, beside the model and the phase."""

_FITS = [column for column in SCALING_FITS.columns if column.key != BUDGET]
_AFTER_TR121 = [column.key for column in _FITS].index("boot_n_requested") + 1
DECODE_SWEEP_SUMMARY = Table(
    name="decode_sweep_summary",
    holds="laws at each decode budget",
    why_empty="one decode budget (phaselaw sweep --axis gen_tokens=8,32,64,128)",
    keeps_budget=True,
    columns=(*_FITS[:_AFTER_TR121], col.counted(BUDGET), *_FITS[_AFTER_TR121:]),
)
EXPONENT_BY_AXIS = Table(
    name="exponent_by_axis",
    holds="laws at each value of a sweep",
    why_empty=_NO_LAW,
    keeps_budget=True,
    columns=(
        *(_AXIS, *_HELD, PHASE, *col.plain("value"), col.counted("n_models")),
        *col.plain("slope slope_t_ci_low slope_t_ci_high r2"),
        col.words("verdict"),
    ),
)
EXPONENT_STABILITY = Table(
    name="exponent_stability",
    holds="whether the exponent stays the same along a sweep",
    caption="Is the exponent stable? Each model's own slope along the axis, against its size: a t interval over "
    "models. What puts a model off the law cancels. A trend is tested, at 95 % for each row alone.",
    why_empty=_NO_LAW,
    keeps_budget=True,
    columns=(
        *(_AXIS, *_HELD, PHASE, col.counted("n_models", "models"), col.counted("n_values")),
        *(col.measured("value_first", "from", col.count), col.measured("value_last", "to", col.count)),
        col.derived("exponent_first", "exponent there", col.fixed),
        col.derived("exponent_last", "exponent there", col.fixed),
        col.derived("change_per_tenfold", "change per tenfold", col.fixed),
        *col.interval("change_ci_low", "change_ci_high", "95 % CI"),
        *col.plain("p"),
        col.words("stability", "verdict"),
    ),
    shows="axis backend mode n_models value_first exponent_first value_last exponent_last change_per_tenfold "
    "change_ci_low stability",
)
SWEEP_CURVES = Table(
    name="sweep_curves",
    holds="latency and rates along a sweep",
    why_empty=_NO_AXIS,
    keeps_budget=True,
    columns=(
        *(_AXIS, *_HELD, col.words("model"), col.words("model_kind"), *col.plain("params_millions_effective"), PHASE),
        *(*col.plain("value"), col.counted("n"), *col.plain("latency_ms latency_ci_low latency_ci_high")),
        *col.plain("tokens_per_s tokens_per_s_ci_low tokens_per_s_ci_high ms_per_token"),
    ),
)
SWEEP_CHANGES = Table(
    name="sweep_changes",
    holds="where along a sweep something changes",
    why_empty=_NO_AXIS,
    columns=(
        *col.plain("axis backend backend_kind held mode what before after", pl.String),
        *(*col.plain("at low high"), *col.plain("interval said", pl.String)),
    ),
)


def as_tr121(tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """TR121's three tables as they stand at the root of its sweep: of the fractions, its columns and no other.

    Where batch sizes differ, their column follows, and where rows are suspect, their marks.
    """
    found = {name: tables[name] for name in TR121_TABLES}
    several = found["decode_fraction_summary"]["batch_size"].n_unique() > 1
    unused = {
        "decode_fraction_by_model": ["params_millions_effective"],
        "decode_fraction_summary": [] if several else ["batch_size"],
    }
    for name, columns in unused.items():
        marked = SUSPECT in found[name].columns and (found[name][SUSPECT] != "").any()
        found[name] = found[name].drop(*columns, *([] if marked else [SUSPECT]), strict=False)
    return found


def decode_sweep_summary(fits: pl.DataFrame) -> pl.DataFrame:
    """The laws on all prompts at each decode budget, TR121's columns first; empty where there is but one budget."""
    of_all = fits.filter(pl.col("scenario") == ALL)
    return DECODE_SWEEP_SUMMARY.frame(of_all if of_all[BUDGET].n_unique() > 1 else of_all.clear())


def prompt_lengths(rows: pl.DataFrame, study: Mapping[str, Any]) -> pl.DataFrame:
    """Per backend and scenario: the prompt's tokens, the median over its calls (models may count differently).

    Of synthetic prompts alone, by the study or their names: texts differ in more than their length.
    """
    synthetic = [each["name"] for each in study.get("scenarios") or () if each.get("prompt_tokens")]
    rows = rows.filter(pl.col("scenario").is_in(synthetic) | pl.col("scenario").str.contains(_PROMPTS))
    length = pl.coalesce(pl.col("seq_len"), pl.col("prompt_tokens_raw") / pl.col("batch_size"))
    names = ["backend", "scenario"]
    prefills = rows.filter(pl.col("mode") == "prefill").select(
        pl.col(names).cast(pl.Categorical), length.alias("prompt_tokens")
    )
    medians = prefills.drop_nulls("prompt_tokens").group_by(names).agg(pl.col("prompt_tokens").median())
    return medians.with_columns(pl.col(names).cast(pl.String)).sort("backend", "prompt_tokens")


def along_axes(
    table: pl.DataFrame, lengths: pl.DataFrame, others: Sequence[str], *, by_prompt: bool = False
) -> pl.DataFrame:
    """The rows along each axis that ``table`` was swept along, with ``axis`` and ``value``; the axis's column is empty.

    ``table`` has a backend, batch size, budget and scenario in each row, `ALL` among the latter; ``others`` are the
    columns that tell its rows apart beside these. A sweep along prompts is of the rows of single prompts, another of
    those of all prompts together; but where prompt lengths were swept beside it, of single ones too: a mean over
    lengths that were chosen to differ would be a figure of no prompt at all. ``by_prompt`` takes single prompts along
    every axis, for what is known of cells alone.
    """
    keys = [*HELD, *others]
    of_all = pl.col("scenario") == ALL
    named = table.filter(~of_all)["scenario"].unique()
    by_prompt = by_prompt or (len(named) > 1 and bool(named.str.contains(_PROMPTS).all()))
    found = []
    for axis, column in AXES.items():
        rows = table.filter(~of_all if by_prompt or axis == "prompt_tokens" else of_all)
        rows = rows.with_columns(pl.col("backend").str.extract(_THREADS).cast(pl.Float64).alias("threads"))
        if axis == "prompt_tokens":
            rows = rows.join(lengths.rename({"prompt_tokens": "value"}), on=["backend", "scenario"])
        else:
            rows = rows.with_columns(pl.col(column).cast(pl.Float64).alias("value")).drop_nulls("value")
        if axis == "threads":
            rows = rows.with_columns(pl.col("backend").str.replace(_THREADS, ""))
        empty = pl.lit(None, dtype=rows.schema[column]).alias(column)
        swept = rows.with_columns(empty, pl.lit(axis).alias("axis"))
        swept = swept.unique([*keys, "value"], keep="first", maintain_order=True)  # prompts that came out equally long
        found.append(swept.filter(pl.col("value").n_unique().over(keys) > 1).sort([*keys, "value"]))
    return pl.concat(found)


def held_words(row: Row) -> str:
    """What was held along an axis, in words: ``batch 1, 64 tokens generated, prompt short``."""
    scenario = row.get("scenario")
    of_length = re.fullmatch(_PROMPTS, scenario or "")
    prompt = f"prompts of {of_length[1]} tokens" if of_length else f"prompt {scenario}"
    named = row if scenario is None else row | {"scenario": "all prompts" if scenario == ALL else prompt}
    return ", ".join(form.format(named[key]) for key, form in _HELD_WORDS.items() if named.get(key) is not None)


def in_order(words: str) -> list[tuple[int, str]]:
    """A key that sorts words with the numbers in them by their size: 16 tokens before 128."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", words)]


def sweep_curves(cells: pl.DataFrame, per_model: pl.DataFrame, lengths: pl.DataFrame, level: float) -> pl.DataFrame:
    """Per axis, model, phase and value: median latency and tokens/s, each with a t interval from its calls' scatter.

    Along every axis but the prompt's a model's figures are its geometric means over prompts, as in the laws. A token of
    ``ms_per_token`` is one of the phase's: a prompt's, a generated one, either. An interval is empty where a cell had
    one call.
    """
    keys = [*HELD[:4], *MODEL, "mode"]
    shared = [*keys, "n", "latency_log_variance", "tokens_per_s_log_variance"]
    of_cells = cells.select(
        *(*shared, "scenario"),
        latency_ms="latency_median_ms",
        tokens_per_s="tokens_per_s_median",
        degrees=pl.col("n") - 1,
    )
    calls = cells.group_by(keys).agg(pl.col("n").min(), pl.col("n").sum().alias("calls"))
    of_models = per_model.join(calls, on=keys, nulls_equal=True).select(
        *shared,
        pl.lit(ALL).alias("scenario"),
        latency_ms="latency_geomean_ms",
        tokens_per_s="tokens_per_s_geomean",
        degrees=pl.col("calls") - pl.col("n_scenarios"),  # each prompt's calls have their own median
    )
    swept = along_axes(pl.concat([of_cells, of_models]), lengths, ["mode", *MODEL])
    for value in ("latency_ms", "tokens_per_s"):
        name = value.removesuffix("_ms")
        swept = swept.with_columns(se=pl.col(f"{name}_log_variance").sqrt())
        swept = with_ends(swept, value, level, named=f"{name}_ci")
    return SWEEP_CURVES.frame(swept.with_columns((1e3 / pl.col("tokens_per_s")).alias("ms_per_token")))


def exponent_by_axis(fits: pl.DataFrame, lengths: pl.DataFrame) -> pl.DataFrame:
    """The law at each value of each axis: exponent, t interval, R2, verdict, from ``scaling_fits``."""
    return EXPONENT_BY_AXIS.frame(along_axes(fits.filter(pl.col("slope").is_not_null()), lengths, ["mode"]))


def exponent_stability(points: pl.DataFrame, lengths: pl.DataFrame, level: float) -> pl.DataFrame:
    """Whether the exponent moves along each axis (TR121 6.2), over the models that were measured at every value.

    ``points`` are those of the laws (`phaselaw.laws.noise.points_of`). The test is paired over models. Along the axis
    each model has a slope ``s`` of log latency on the log of the axis's value. Were the exponent the same at every
    value, those slopes would not depend on the model's size; if it moves by ``d`` for each tenfold of the axis,
    ``s = c + d log10(parameters)``. So ``d``, the column ``change_per_tenfold``, is a least-squares slope over models,
    with a t interval of n - 2 degrees of freedom. What puts a model off the law puts it off at every value alike, and
    cancels; a test that took the points for independent would count it as noise at each value and find nothing. The
    test sees a trend, not an exponent that goes up and comes back.
    """
    size = pl.col("params_millions_effective")
    sound = points.filter(size.is_finite() & (size > 0) & (pl.col("latency") > 0))
    swept = along_axes(sound, lengths, ["mode", "model", "model_kind"])
    rows = []
    for about, group in grouped(swept, ["axis", *HELD, "mode"]):
        table = group.pivot(on="value", index=MODEL, values="latency").drop_nulls()
        values = sorted(table.columns[len(MODEL) :], key=float)
        if table.height > 1 and len(values) > 1:
            sizes, latencies = table["params_millions_effective"].to_numpy(), table.select(values).to_numpy()
            rows.append(about | stability_of(np.array(values, dtype=float), sizes, latencies, level=level))
    return EXPONENT_STABILITY.frame(rows)


def stability_of(values: Floats, params: Floats, latencies: Floats, level: float) -> dict[str, Any]:
    """The figures of ``exponent_stability`` for an axis's values (v,), models' parameters (m,), latencies (m, v)."""
    models, sizes, logs = len(params), np.log10(params), np.log10(latencies)
    first, last = (fit_line(sizes, logs[:, at]).slope for at in (0, -1))
    line = fit_line(sizes, np.array([fit_line(np.log10(values), each).slope for each in logs]))
    change, se = line.slope, line.slope_se
    half = float(t_half_width(np.array(se), models - 2, level))
    p = float(2 * special.stdtr(models - 2, -abs(change) / se)) if models > 2 and se > 0 else None
    narrow, trend = params.max() / params.min() < LEAST_RANGE, MOVES if p is not None and p < 1 - level else NO_TREND
    return {
        "n_models": models,
        "n_values": len(values),
        "value_first": float(values[0]),
        "value_last": float(values[-1]),
        "exponent_first": first,
        "exponent_last": last,
        "change_per_tenfold": change,
        "change_ci_low": change - half if np.isfinite(half) else None,
        "change_ci_high": change + half if np.isfinite(half) else None,
        "p": p,
        "stability": TOO_FEW if models < MIN_MODELS else NARROW if narrow else trend,
    }


def sweep_changes(tables: Mapping[str, pl.DataFrame], lengths: pl.DataFrame, level: float) -> pl.DataFrame:
    """A row for each change along an axis, or one for none found, for each backend.

    ``tables`` are those of the run by name: the laws, regimes and shares that may change. What is judged at each value
    changes between two of them, and those two are the interval.
    """
    laws = tables["exponent_by_axis"]
    regimes = tables["regimes"].filter(pl.col("regime") != COLD_START).with_columns(pl.lit(ALL).alias("scenario"))
    # A row for all models whose wall becomes another alike.
    walls = along_axes(
        tables["physical_limit"].filter(pl.col("wall").is_not_null()), lengths, ["mode", "model"], by_prompt=True
    )
    same_walls = alike(_of_labels(walls, "wall", "the wall"), "axis", "backend", "held", "mode", "said").values()
    found: list[Row] = [
        *_of_labels(laws.with_columns(pl.col("verdict").map_elements(word, pl.String)), "verdict", "the law's verdict"),
        *_of_labels(along_axes(regimes, lengths, []), "regime", "the regime"),
        *(row[0] | {"said": f"{row[0]['said']} for {', '.join(each['model'] for each in row)}"} for row in same_walls),
        *_moving_exponents(tables["exponent_stability"]),
        *_dominance(tables["decode_fraction_by_model"], level),
        *_most_clients(tables["concurrency_throughput"]),
    ]
    changed = {(row["axis"], row["backend"]) for row in found if not str(row["interval"]).endswith("extrapolated")}
    settings = ["axis", "backend", "backend_kind"]
    for about, group in grouped(tables["sweep_curves"], settings):
        if (about["axis"], about["backend"]) not in changed:
            low, high = group["value"].to_numpy().min(), group["value"].to_numpy().max()
            law = "verdict, regime, wall or exponent" if like(laws, about, settings).height else _NO_LAW_CHANGES
            said = f"no {law} is found to change between {low:g} and {high:g}"
            found.append(_change(about, NOTHING, said, low=low, high=high))
    order = [*AXES, CLIENTS]

    def place(row: Row) -> tuple[Any, ...]:
        return order.index(row["axis"]), row["backend"], in_order(row["held"]), row["what"], str(row.get("mode"))

    found.sort(key=place)
    return SWEEP_CHANGES.frame(found)


def _change(about: Row, what: str, said: str, **more: Any) -> Row:
    return about | {"held": held_words(about), "what": what, "said": said, "interval": _ALONG} | more


def _of_labels(swept: pl.DataFrame, label: str, what: str) -> Iterator[Row]:
    """Each place along an axis where a label is not what it was at the value before."""
    keys = [name for name in ("axis", *HELD, "mode", "model") if name in swept.columns]
    for about, group in grouped(swept, keys):
        subject = f"{what} on {_PHASES[about['mode']]}" if about.get("mode") else what
        for (low, before), (high, after) in pairwise(group.select("value", label).iter_rows()):
            if before != after:
                said = f"{subject} goes from {before} to {after} between {low:g} and {high:g}"
                ends = {"before": before, "after": after, "low": low, "high": high}
                yield _change(about, what, said, interval="between two measured values", **ends)


def _moving_exponents(stability: pl.DataFrame) -> Iterator[Row]:
    for row in stability.filter(pl.col("stability") == MOVES).iter_rows(named=True):
        first, last, low, high = (row[f"{what}_{end}"] for what in ("exponent", "value") for end in ("first", "last"))
        moved = f"{row['change_per_tenfold']:+.3f} [{row['change_ci_low']:+.3f}, {row['change_ci_high']:+.3f}]"
        said = (
            f"the exponent of {_PHASES[row['mode']]} moves by {moved} for each tenfold, from {first:.3f} at {low:g} "
            f"to {last:.3f} at {high:g}"
        )
        yield _change(row, "the exponent", said, before=f"{first:.3f}", after=f"{last:.3f}", low=low, high=high)


def _dominance(fractions: pl.DataFrame, level: float) -> Iterator[Row]:
    possible = fractions.filter(pl.col(BUDGET) > 0, pl.col("decode_fraction").is_between(0, 1, closed="none"))
    for key, group in grouped(possible, ["backend", "backend_kind", "batch_size"]):
        budgets = sorted(group[BUDGET].unique())
        if len(budgets) < 2:
            continue
        for most in DOMINANT_SHARES:
            at, low, high = dominance_budget(group, most, level)
            inside = budgets[0] <= at <= budgets[-1]
            where = "" if inside else f", {'below' if at < budgets[0] else 'beyond'} what was measured (extrapolated)"
            ends = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
            said = f"decode passes {most:.0%} of end-to-end latency at {at:.3g}{ends} generated tokens{where}"
            basis = f"{col.in_full(level)} over models" + ("" if inside else ", extrapolated")
            about = key | {"axis": "gen_tokens", "scenario": ALL}
            yield _change(about, f"decode's share passes {most:g}", said, at=at, low=low, high=high, interval=basis)


def dominance_budget(fractions: pl.DataFrame, share: float, level: float) -> tuple[float, float | None, float | None]:
    """The decode budget at which decode is so large a share, with its t interval over models.

    A model's prefill costs as much as ``k`` of its decode steps, so decode is a share ``f`` of end-to-end latency at
    ``f / (1 - f) x k`` tokens. ``k`` is the geometric mean over models.
    """
    ratio = (1 / pl.col("decode_fraction") - 1) * pl.col(BUDGET)
    logs = fractions.group_by("model").agg(ratio.log().mean().alias("log"))["log"].to_numpy()
    middle = float(logs.mean()) + float(np.log(share / (1 - share)))
    if len(logs) < 2 or not np.isfinite(middle):
        return float(np.exp(middle)), None, None
    half = float(t_half_width(logs.std(ddof=1) / np.sqrt(len(logs)), len(logs) - 1, level))
    return float(np.exp(middle)), float(np.exp(middle - half)), float(np.exp(middle + half))


def _most_clients(throughput: pl.DataFrame) -> Iterator[Row]:
    """Between which numbers of clients a server's output is largest, or that it still grew at the most tried."""
    keys = ["backend", "backend_kind", "model", "scenario", BUDGET]
    whole = throughput.drop_nulls("output_tokens_per_s_median")  # of some, each group may have lost a call
    several = whole.filter(pl.len().over(keys) > 1)
    for key, group in grouped(several.sort(CLIENTS), keys):
        clients, rates = group[CLIENTS].to_list(), group["output_tokens_per_s_median"].to_list()
        best = int(np.argmax(rates))
        about = key | {"axis": CLIENTS, "mode": "kv_decode"}
        gain = f"{rates[best] / rates[0]:.2f} x one client's" if clients[0] == 1 else f"{rates[best]:.3g} tokens/s"
        if best == len(clients) - 1:
            low, before = group.item(-1, "output_tokens_per_s_ci_low"), group.item(-2, "output_tokens_per_s_ci_high")
            surely = low is not None and before is not None and low > before
            of, most = f"output of {key['model']}", f"at {clients[best]} clients, the most tried"
            said = f"{of} still grows {most}: {gain}"
            said = said if surely else f"{of} {most}, can't be told from that at {clients[-2]}: {gain}"
            yield _change(about, NOTHING, said, low=clients[0], high=clients[-1])
        else:
            low, high = clients[max(best - 1, 0)], clients[best + 1]
            said = f"output of {key['model']} is largest between {low} and {high} clients: {gain} at {clients[best]}"
            ends = {"at": clients[best], "low": low, "high": high, "interval": "between measured values"}
            yield _change(about, "the largest output", said, **ends)
