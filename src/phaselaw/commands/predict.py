"""``phaselaw predict``: the latency of a model that was not measured, with a prediction interval."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaselaw.commands import COMMANDS

if TYPE_CHECKING:
    from phaselaw.laws.prediction import Predictions

EXAMPLES = """\
examples:
  phaselaw predict runs/a --params 60M                          by the law in parameters
  phaselaw predict runs/a --params 60M --layers 6               by whichever law predicts best; the others beside it
  phaselaw predict runs/a --params 3B --layers 28 --extrapolate outside the measured range: labelled, don't plan with it
  phaselaw predict runs/a runs/b --params 6e7 --json            runs of one study, pooled

The interval is where the latency of one new model lies: it holds how far models scatter about the law.
"""

JSON_VERSION = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``predict`` to the command line."""
    parser = subparsers.add_parser(
        "predict",
        help=COMMANDS["predict"],
        description="Predict latency and tokens/s by backend and phase, inside the range that was measured.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params", required=True, metavar="N", help="parameters of the model: 3e9, 3B or 135M")
    parser.add_argument("--layers", type=float, metavar="N", help="its layers, where the run knows its models'")
    parser.add_argument("--width", type=float, metavar="N", help="its hidden size, where the run knows its models'")
    parser.add_argument(
        "--extrapolate", action="store_true", help="predict outside the measured range too, labelled so"
    )
    add_shared(parser)
    parser.set_defaults(run=run)


def add_shared(parser: argparse.ArgumentParser) -> None:
    """The arguments that ``predict`` and ``validate`` share."""
    parser.add_argument(
        "run_paths",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a run directory or a metrics.csv; several of one study on one host are pooled",
    )
    parser.add_argument("--backends", metavar="A,B", help="only these backends")
    parser.add_argument("--level", type=float, default=0.95, metavar="P", help="level of the intervals (default: 0.95)")
    parser.add_argument(
        "--models-table", type=Path, metavar="CSV", help="architecture of models whose config is absent"
    )
    parser.add_argument(
        "--allow-different", action="store_true", help="pool runs although their study or host differs, with a note"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, full precision")


def run(args: argparse.Namespace) -> int:
    """Print the predictions; returns 0, or raises `AnalysisError` where none can be made."""
    from phaselaw.errors import AnalysisError
    from phaselaw.laws.prediction import NewModel, predict

    model = NewModel(
        params_millions=params_millions(args.params),
        n_layer=_positive(args.layers, "--layers"),
        n_embd=_positive(args.width, "--width"),
    )
    tables = analysed_tables(args)
    predictions = predict(tables, model, level=args.level, extrapolate=args.extrapolate)
    if not predictions.rows:
        raise AnalysisError(_refusal(predictions))
    if args.json:
        document = {"schema_version": JSON_VERSION, **dataclasses.asdict(predictions)}
        print(json.dumps(finite(document), allow_nan=False))
        return 0
    _print(predictions)
    return 0


def params_millions(text: str) -> float:
    """Millions of parameters of ``3e9``, ``3B`` or ``135M``; raises `UsageError` for anything else."""
    from phaselaw.engines.ollama_api import parameter_millions
    from phaselaw.errors import UsageError

    try:
        found = float(text) / 1e6
    except ValueError:
        found = parameter_millions(text) or math.nan
    if not 0 < found < math.inf:
        raise UsageError(f"--params {text}: give a count of parameters, such as 3e9, 3B or 135M")
    return found


def finite(value: Any) -> Any:
    """A document with ``None`` for what is no number in JSON: an end of an interval that nothing bounds."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _positive(value: float | None, option: str) -> float | None:
    from phaselaw.errors import UsageError

    if value is not None and not 0 < value < math.inf:
        raise UsageError(f"{option} {value:g}: give a positive number")
    return value


def analysed_tables(args: argparse.Namespace) -> dict[str, Any]:
    """The analysis' tables of the runs that were named, of the backends that were; notes go to stderr."""
    import polars as pl

    from phaselaw.errors import UsageError
    from phaselaw.laws.analysis import Options, analyze
    from phaselaw.rundir import read as runs

    if not 0 < args.level < 1:
        raise UsageError(f"--level {args.level:g}: give a share between 0 and 1")
    run = runs.load_all(args.run_paths, allow_different=args.allow_different)
    for note in run.notes:
        print(f"phaselaw: note: {note}", file=sys.stderr)
    tables = analyze(run, Options(level=args.level, models_table=args.models_table)).tables
    if args.backends is None:
        return tables
    known = run.rows["backend"].unique(maintain_order=True).to_list()
    names = [name.strip() for name in args.backends.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(f"--backends {name}: not in this run; it has: {', '.join(known)}")
    return {
        title: table.filter(pl.col("backend").is_in(names)) if "backend" in table.columns else table
        for title, table in tables.items()
    }


def _refusal(predictions: Predictions) -> str:
    if not predictions.refused:
        return "no law to predict by: no model has both a parameter count and a usable latency"
    reasons: dict[str, list[str]] = {}
    for refused in predictions.refused:
        reasons.setdefault(refused.reason, []).append(_where(refused))
    said = "; ".join(f"{', '.join(dict.fromkeys(where))}: {reason}" for reason, where in reasons.items())
    if not any(refused.outside for refused in predictions.refused):
        return said
    return f"the model lies outside of what was measured: {said}; --extrapolate predicts it all the same, labelled"


def _where(about: Any) -> str:
    from phaselaw.report.subject import law_words

    return law_words({name: getattr(about, name) for name in ("backend", "batch_size", "gen_tokens_target")})


def _print(predictions: Predictions) -> None:
    from rich.console import Console

    from phaselaw.report.prediction import predicted, reading
    from phaselaw.report.terminal import print_table

    console = Console(highlight=False)
    shown = console if console.is_terminal else Console(width=200, highlight=False)
    print_table(predicted(predictions), shown)
    for line in reading(predictions):
        console.print(line, markup=False, soft_wrap=True)
    for refused in predictions.refused:
        sys.stderr.write(f"phaselaw: note: not predicted on {_where(refused)}: {refused.reason}\n")
