"""What a request gets of each model on each prompt, with intervals; and two models against each other, by prompt.

Rows of one client alone. The first token is as its user waits for it (in process: the prefill), the whole as well.
Intervals of medians are `phaselaw.laws.rates`' t intervals on the log, of each cell in place of each model. That of the
p95 is of order statistics: of few calls its upper end is not known.
"""

import numpy as np
import polars as pl
from scipy import special

from phaselaw import tables as col
from phaselaw.laws import rates
from phaselaw.laws.noise import units_of
from phaselaw.laws.summary import CELL, GROUP, MODEL, by_cell
from phaselaw.laws.warmup import SHAPE
from phaselaw.tables import BUDGET, LAW, PHASE, Col, Row, Table

REAL, NOT_TOLD = "real", "can't be told"
_ENDS = ("low", "high", "within_low", "within_high")


def _figure(key: str, title: str) -> tuple[Col, ...]:
    """A measured figure and the ends of its intervals: of one more run, or of this run alone."""
    return col.figure(key, title, provenance="measured"), *col.plain(" ".join(f"{key}_{end}" for end in _ENDS))


def _p95(row: Row) -> str:
    low, high = (col.digits(row[f"ttft_ms_p95_{end}"]) for end in ("low", "high"))
    return f"{col.digits(row['ttft_ms_p95'])} [{low}, {high}]"


_P95 = col.measured("ttft_ms_p95", "TTFT p95", of_row=_p95)
_CALL = (LAW, col.words("backend_kind"), col.counted("batch_size"), col.MODEL, col.words("model_kind"))
_PROMPT = (*col.plain("params_millions_effective"), col.words("scenario", "prompt"))
REQUESTS_BY_PROMPT = Table(
    name="requests_by_prompt",
    holds="what a request of one client gets, of each model and prompt: tokens/s, first token, the whole, when cold",
    why_empty="no usable call of one client alone",
    columns=(
        *(*_CALL, *_PROMPT, col.counted("n", "calls"), *col.plain("prompt_tokens")),
        *_figure("tokens_per_s", "tokens/s generated"),
        *_figure("ttft_ms", "TTFT (ms)"),
        *(_P95, *col.plain("ttft_ms_p95_low ttft_ms_p95_high")),
        *(*_figure("step_ms", "ms a token"), *_figure("request_ms", "whole call (ms)")),
        *(col.measured("cold_ms", "cold TTFT"), *col.plain("cold_load_ms"), col.words("coldness")),
        *(col.words("interval_basis"), col.counted(BUDGET)),
    ),
    order=("backend", "batch_size", BUDGET, "params_millions_effective", "model", "prompt_tokens", "scenario"),
)
MODELS_BY_PROMPT = Table(
    name="models_by_prompt",
    holds="two models against each other, prompt by prompt",
    caption="The two against each other, prompt by prompt: real where the interval of the ratio leaves out 1.",
    why_empty="not a run of two models, or no prompt that both were given",
    columns=(
        *(*_CALL, col.words("other_model", "against"), col.words("other_backend"), *_PROMPT[1:], PHASE),
        *(col.measured("latency_ms", "ms"), col.measured("other_latency_ms", "against (ms)")),
        *(col.derived("ratio", "ratio"), *col.interval("ratio_low", "ratio_high", "its interval", col.digits)),
        *(col.words("verdict", "difference"), col.words("interval_basis"), col.counted(BUDGET)),
    ),
    shows="model other_model scenario mode latency_ms other_latency_ms ratio ratio_low verdict",
)
_KEYS = [name for name in CELL if name != "mode"]
_SIDE = ["backend", "batch_size", "model"]
_FIGURES = {"prefill": "ttft_ms", "kv_decode": "step_ms", "e2e_kv": "request_ms"}


def as_users_wait(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with what a user waits for as ``latency_ms``: the first token, one more, the whole."""
    mode, latency = pl.col("mode"), pl.col("latency_ms")
    waits = {"prefill": "ttft_ms", "kv_decode": "decode_step_ms", "e2e_kv": "request_ms"}
    known = [pl.when(mode == phase).then(pl.col(name)) for phase, name in waits.items()]
    step = pl.when(mode == "kv_decode").then(latency / pl.col(BUDGET))
    return rows.with_columns(pl.coalesce(*known, step, latency).alias("latency_ms"))


def requests_by_prompt(rows: pl.DataFrame, firsts: pl.DataFrame, *, in_rounds: bool, level: float) -> pl.DataFrame:
    """``requests_by_prompt`` of usable measured rows; ``firsts`` are first calls (`phaselaw.laws.warmup.first_calls`).

    A model's cold first token is its slowest after a load or a start, on whatever prompt it came.
    """
    rows = as_users_wait(rows)
    units = units_of(rows, in_rounds=in_rounds)
    known = rates.deviations_of(units, units.logs.rename({"latency": "log"}), GROUP, [*MODEL, "scenario"])
    cells = by_cell(rows).join(known, on=CELL, how="left", nulls_equal=True, suffix="_units")
    prompt = pl.col("prompt_tokens_raw_median").first() / pl.col("batch_size").first()
    table = cells.group_by(_KEYS, maintain_order=True).agg(prompt_tokens=prompt)
    for mode, name in _FIGURES.items():
        part = cells.filter(pl.col("mode") == mode).rename({"latency_median_ms": name, "latency_p95_ms": f"{name}_p95"})
        part = rates.with_ends(rates.with_ends(part, name, level), name, level, "_within")
        more = {"prefill": [f"{name}_p95"], "e2e_kv": ["n", "basis"]}.get(mode, [])
        part = part.select(*_KEYS, name, *(f"{name}_{end}" for end in _ENDS), *more)
        table = table.join(part, on=_KEYS, how="left", nulls_equal=True)
    made = 1e3 * pl.col("batch_size") * pl.col(BUDGET)
    other_end = {"": "", "_low": "_high", "_high": "_low", "_within_low": "_within_high", "_within_high": "_within_low"}
    rate = {f"tokens_per_s{end}": made / pl.col(f"request_ms{other}") for end, other in other_end.items()}
    loads = firsts.filter(pl.col("mode") == "prefill", pl.col("coldness") != SHAPE).sort("first", descending=True)
    cold = loads.group_by([*_SIDE, BUDGET], maintain_order=True).agg(
        cold_ms=pl.col("first").first(), cold_load_ms=pl.col("load").first(), coldness=pl.col("coldness").first()
    )
    table = table.join(cold, on=[*_SIDE, BUDGET], how="left", nulls_equal=True)
    # Two waits for a first token between which their 95th percentile lies, whatever their distribution.
    waits = rows.filter(pl.col("mode") == "prefill").group_by(_KEYS).agg(each=pl.col("latency_ms").sort())
    n, share = waits["each"].list.len().to_numpy(), (1 - level) / 2
    low, high = (pl.Series(np.ceil(special.bdtrik(at, n, 0.95))).cast(pl.Int64) for at in (share, 1 - share))
    low_end, high_end = (pl.col("each").list.get(pl.lit(at), null_on_oob=True) for at in (low - 1, high))
    ends = waits.select(*_KEYS, ttft_ms_p95_low=pl.when(low > 0).then(low_end), ttft_ms_p95_high=high_end)
    table = table.join(ends, on=_KEYS, how="left", nulls_equal=True)
    return REQUESTS_BY_PROMPT.frame(table.with_columns(interval_basis="basis", **rate))


def models_by_prompt(rows: pl.DataFrame, *, in_rounds: bool, level: float) -> pl.DataFrame:
    """``models_by_prompt`` of usable measured rows: empty unless these are of two models.

    They are compared on each backend, or across the two where each has one of its own. A ratio's interval is of its
    long-run mean over replicates, where there are any, else of this run.
    """
    rows = as_users_wait(rows)
    sizes = rows.group_by("model").agg(size=pl.col("params_millions_effective").median()).sort("size", "model")
    if sizes.height != 2:
        return MODELS_BY_PROMPT.frame()
    units, cells = units_of(rows, in_rounds=in_rounds), by_cell(rows)
    smaller = pl.col("model") == sizes["model"][0]
    of_one = cells.select(_SIDE).unique().height == 2
    on = ["mode", BUDGET, "scenario", *([] if of_one else ["backend", "batch_size"])]

    def paired(table: pl.DataFrame, *more: str) -> pl.DataFrame:
        others = table.filter(~smaller).rename({"model": "other_model"}).with_columns(other_backend="backend")
        return table.filter(smaller).join(others, on=[*on, *more], nulls_equal=True, suffix="_other")

    logs = paired(units.logs, "replicate").with_columns(log=pl.col("latency") - pl.col("latency_other"))
    group = ["mode", BUDGET, "backend", "batch_size"]
    known = rates.deviations_of(units, logs, group, ["scenario"])
    figures = {"latency_ms": "latency_median_ms", "other_latency_ms": "latency_median_ms_other"}
    table = paired(cells).join(known, on=[*group, "scenario"], how="left", nulls_equal=True).with_columns(**figures)
    ratio = pl.col("latency_ms") / pl.col("other_latency_ms")
    table = table.with_columns(ratio=ratio, se=pl.coalesce("se_mean", "se_within"), interval_basis="basis")
    table = rates.with_ends(table, "ratio", level)
    real = (pl.col("ratio_low") > 1) | (pl.col("ratio_high") < 1)
    verdict = pl.when(real).then(pl.lit(REAL)).otherwise(pl.lit(NOT_TOLD))
    return MODELS_BY_PROMPT.frame(table.with_columns(verdict=verdict))
