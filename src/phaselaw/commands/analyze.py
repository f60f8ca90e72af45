"""``phaselaw analyze``: every table of a run, as CSV."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from phaselaw.commands import COMMANDS

if TYPE_CHECKING:
    import polars as pl

    from phaselaw.laws.analysis import Analysis, Options
    from phaselaw.records import Run

EXAMPLES = """\
examples:
  phaselaw analyze runs/a                           write runs/a/analysis/*.csv
  phaselaw analyze runs/a runs/b runs/c --out abc   pool runs of one study: the intervals then hold run-to-run noise
  phaselaw analyze sweeps/decode                    a decode sweep: a folder with the runs gen_8, gen_32, ...
  phaselaw analyze other/metrics.csv --out tables   analyse rows measured elsewhere (TR121's format)
  phaselaw analyze runs/a --bootstrap 10000 --seed 7
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``analyze`` to the command line."""
    parser = subparsers.add_parser(
        "analyze",
        help=COMMANDS["analyze"],
        description="Summaries, scaling laws with intervals, structure, warmup, verdicts: as CSV tables.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_paths",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a run directory, a metrics.csv, or a folder of runs gen_N; several of one study on one host are pooled",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the tables go (default: RUN/analysis; asked for with several)"
    )
    parser.add_argument(
        "--allow-different", action="store_true", help="pool runs although their study or host differs, with a note"
    )
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples of models (default: 1000)")
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="seed of the resamples (default: 42)")
    parser.add_argument("--level", type=float, default=0.95, metavar="P", help="level of the intervals (default: 0.95)")
    parser.add_argument(
        "--cold-start-slo", type=float, default=100.0, metavar="MS", help="what a first call may add (default: 100 ms)"
    )
    parser.add_argument("--include-warmup", action="store_true", help="fit warmup calls too")
    parser.add_argument(
        "--models-table", type=Path, metavar="CSV", help="architecture of models whose config is absent"
    )
    parser.add_argument("--json", action="store_true", help="print the tables' names, row counts and notes as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the tables and say what they are; returns 0."""
    from phaselaw.errors import UsageError
    from phaselaw.laws.analysis import Options
    from phaselaw.rundir import read as runs
    from phaselaw.rundir.read import runs_of

    if len(args.run_paths) > 1 and args.out is None:
        raise UsageError("several runs have no folder in common: say with --out DIR where the tables go")
    if args.bootstrap < 1 or args.seed < 0 or not 0 < args.level < 1:
        raise UsageError("--bootstrap needs a positive count, --seed a count, --level a share between 0 and 1")
    if not 0 <= args.cold_start_slo < float("inf"):
        raise UsageError("--cold-start-slo needs milliseconds, 0 or more")
    options = Options(
        draws=args.bootstrap,
        seed=args.seed,
        level=args.level,
        include_warmup=args.include_warmup,
        cold_start_slo_ms=args.cold_start_slo,
        models_table=args.models_table,
    )
    if len(args.run_paths) == 1 and runs_of(args.run_paths[0]):
        return _sweep(args.run_paths[0], args, options)
    folder = args.out or _analysis_folder(args.run_paths[0])
    run = runs.load_all(args.run_paths, allow_different=args.allow_different)
    analysis = _analyzed(run, folder, options)
    counts = {name: table.height for name, table in analysis.tables.items()}
    if args.json:
        document = {"schema_version": 1, "directory": str(folder), "runs": [source.run_id for source in run.sources]}
        print(json.dumps(document | {"tables": counts, "notes": analysis.notes, "run_notes": run.notes}))
        return 0
    for name, rows in counts.items():
        print(f"{folder / name}.csv  {rows} rows" + (f"  ({analysis.notes[name]})" if name in analysis.notes else ""))
    return 0


def _sweep(folder: Path, args: argparse.Namespace, options: Options) -> int:
    """A folder of runs ``gen_N``: each analysed in its own folder, TR121's tables at the root, the others beside."""
    from phaselaw.laws.analysis import analyze_sweep
    from phaselaw.laws.sweep_tables import TR121_TABLES, as_tr121
    from phaselaw.rundir.read import load_sweep, runs_of

    out: Path = args.out or folder
    whole, parts = load_sweep(folder, runs_of(folder))
    for budget, part in parts.items():
        _analyzed(part, out / f"gen_{budget}" / "analysis", options)
    analysis = analyze_sweep(whole, parts, options)
    others = {name: table for name, table in analysis.tables.items() if name not in TR121_TABLES}
    _written(as_tr121(analysis.tables), out)
    _written(others, out / "analysis")
    if args.json:
        document = {"schema_version": 1, "directory": str(out), "runs": [f"gen_{budget}" for budget in parts]}
        counts = {name: table.height for name, table in analysis.tables.items()}
        print(json.dumps(document | {"tables": counts, "notes": analysis.notes, "run_notes": whole.notes}))
        return 0
    for budget in parts:
        print(f"{out / f'gen_{budget}' / 'analysis'}  the run's own tables")
    for name, table in analysis.tables.items():
        place = out if name in TR121_TABLES else out / "analysis"
        note = f"  ({analysis.notes[name]})" if name in analysis.notes else ""
        print(f"{place / name}.csv  {table.height} rows{note}")
    return 0


def analyze_run(path: Path, *, out: Path | None = None, options: Options | None = None) -> Analysis:
    """Analyse a run, write its tables (into ``RUN/analysis`` for ``None``) and return them.

    Raises `RunError` where they can't be written, and what reading and analysing raise.
    """
    from phaselaw.rundir import read as runs

    return _analyzed(runs.load(path), out or _analysis_folder(path), options)


def _analyzed(run: Run, folder: Path, options: Options | None) -> Analysis:
    """Analyse rows that were read, and write their tables into a folder."""
    from phaselaw.laws.analysis import Options, analyze

    for note in run.notes:
        print(f"phaselaw: note: {note}", file=sys.stderr)
    analysis = analyze(run, options or Options())
    _written(analysis.tables, folder)
    return analysis


def _written(tables: Mapping[str, pl.DataFrame], folder: Path) -> None:
    from phaselaw.errors import RunError
    from phaselaw.laws.analysis import write

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(tables, folder)
    except OSError as error:
        raise RunError(f"{folder} can't be written ({error.strerror}); choose another place with --out") from None


def _analysis_folder(path: Path) -> Path:
    return (path if path.is_dir() else path.parent) / "analysis"
