"""Predict latency and tokens/s by backend and phase, inside the range that was measured.

examples:
  phaselaw predict runs/a --params 60M                          by the law in parameters
  phaselaw predict runs/a --params 60M --layers 6               by whichever law predicts best; the others beside it
  phaselaw predict runs/a --params 3B --layers 28 --extrapolate   outside the measured range: don't plan with it
  phaselaw predict runs/a runs/b --params 6e7 --json            runs of one study, pooled

The interval is where the latency of one new model lies: it holds how far models scatter about the law.
"""

import argparse
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from phaselaw import api
from phaselaw.commands import options as opt
from phaselaw.commands.console import note, screen
from phaselaw.errors import AnalysisError
from phaselaw.laws.prediction import Predictions
from phaselaw.plan import positive
from phaselaw.report.document import Section
from phaselaw.report.prediction import predicted, reading
from phaselaw.report.subject import law_words
from phaselaw.report.terminal import print_fitting

PARAMS = opt.number("a count of parameters, such as 3e9, 3B or 135M", lambda value: 0 < value < math.inf)


def add_options(parser: argparse.ArgumentParser) -> None:
    opt.option(parser, "--params", "N", "parameters of the model: 3e9, 3B or 135M", PARAMS, required=True)
    for name, what in (("--layers", "layers"), ("--width", "hidden size")):
        opt.option(parser, name, "N", f"its {what}, where the run knows its models'", positive)
    opt.switch(parser, "--extrapolate", "predict outside the measured range too, labelled so")
    add_shared(parser)


def add_shared(parser: argparse.ArgumentParser) -> None:
    """The arguments that ``predict`` and ``validate`` share."""
    opt.add_runs(parser)
    opt.option(parser, "--backends", "A,B", "only these backends", type=opt.names)
    opt.add_level(parser)
    opt.add_models_table(parser)
    opt.add_allow_different(parser)
    opt.add_json(parser)


def run(args: argparse.Namespace) -> None:
    loaded, tables = load_tables(args)
    model = {name: getattr(args, name) for name in ("params", "layers", "width")}
    predictions = api.predict(loaded, **model, extrapolate=args.extrapolate, tables=tables)
    if not predictions.rows:
        raise AnalysisError(_refusal(predictions))
    if args.json:
        opt.print_json(finite({"schema_version": 1, **dataclasses.asdict(predictions)}))
        return
    print_fitting(Section(title="", blocks=(predicted(predictions), *reading(predictions))), screen(), as_wide=True)
    for refused in predictions.refused:
        note(f"not predicted on {_where(refused, predictions)}: {refused.reason}")


def finite(value: Any) -> Any:
    """A document with ``None`` for what is no number in JSON: an end of an interval that nothing bounds."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_tables(args: argparse.Namespace) -> tuple[api.Loaded, Mapping[str, pl.DataFrame]]:
    """The runs that were named, with the analysis' tables of the backends that were."""
    how = {name: getattr(args, name) for name in ("level", "models_table", "allow_different")}
    loaded = api.load(*args.run_paths, **how)
    note(*loaded.run.notes)
    if args.backends is None:
        return loaded, loaded.tables
    known = loaded.rows["backend"].unique(maintain_order=True).to_list()
    mine = pl.col("backend").is_in(opt.chosen("--backends", args.backends, known))
    tables = loaded.tables.items()
    return loaded, {name: table.filter(mine) if "backend" in table.columns else table for name, table in tables}


def _refusal(predictions: Predictions) -> str:
    if not predictions.refused:
        return "no law to predict by: no model has both a parameter count and a usable latency"
    places: dict[str, dict[str, None]] = {}
    for each in predictions.refused:
        places.setdefault(each.reason, {})[_where(each, predictions)] = None
    why = "; ".join(f"{', '.join(where)}: {reason}" for reason, where in places.items())
    if not any(refused.outside for refused in predictions.refused):
        return why
    return f"the model lies outside of what was measured: {why}; --extrapolate predicts it all the same, labelled"


def _where(about: Any, of: Predictions) -> str:
    names = ("backend", "batch_size", "gen_tokens_target")
    return law_words({name: getattr(about, name) for name in names}, batch=of.several_batches)
