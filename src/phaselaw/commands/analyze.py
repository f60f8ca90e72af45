"""Summaries, scaling laws with intervals, structure, warmup, verdicts: as CSV tables.

examples:
  phaselaw analyze runs/a                           write runs/a/analysis/*.csv
  phaselaw analyze runs/a runs/b runs/c --out abc   pool runs of one study: the intervals then hold run-to-run noise
  phaselaw analyze sweeps/decode                    a decode sweep: a folder with the runs gen_8, gen_32, ...
  phaselaw analyze other/metrics.csv --out tables   analyse rows measured elsewhere (TR121's format)
  phaselaw analyze runs/a --bootstrap 10000 --seed 7
"""

import argparse
from pathlib import Path

from phaselaw import api
from phaselaw.commands import options as opt
from phaselaw.commands.console import note
from phaselaw.errors import UsageError
from phaselaw.laws.analysis import Options
from phaselaw.laws.sweeps import TR121_TABLES
from phaselaw.rundir.read import runs_by_host
from phaselaw.tables import Row


def add_options(parser: argparse.ArgumentParser) -> None:
    opt.add_runs(parser)
    out = "where the tables go (default: RUN/analysis; asked for with several)"
    opt.option(parser, "--out", "DIR", out, type=opt.a_path)
    opt.add_allow_different(parser)
    opt.add_count(parser, "--bootstrap", "resamples of models (default: 1000)", default=1000)
    opt.add_count(parser, "--seed", "seed of the resamples (default: 42)", least=0, default=42)
    opt.add_level(parser)
    opt.add_cold_start_slo(parser)
    opt.switch(parser, "--include-warmup", "fit warmup calls too")
    opt.add_models_table(parser)
    opt.switch(parser, "--across-hosts", "of a run over several hosts: pool them, as a level of the noise")
    opt.add_json(parser, "print the tables' names, row counts and notes as JSON")


def run(args: argparse.Namespace) -> None:
    if len(args.run_paths) > 1 and args.out is None:
        raise UsageError("several runs have no folder in common: say with --out DIR where the tables go")
    chosen = {name: getattr(args, name) for name in ("seed", "level", "include_warmup", "models_table")}
    options = Options(draws=args.bootstrap, cold_start_slo_ms=args.cold_start_slo, **chosen)
    hosts = [host for path in args.run_paths for host in runs_by_host(path) or [path]]
    if args.across_hosts:
        args.out = args.out or args.run_paths[0] / "analysis"
        args.run_paths, args.allow_different = hosts, True
    elif len(args.run_paths) == 1 < len(hosts):
        found = {each.name: _analyzed([each], each.name, args, options) for each in hosts}
        document = {"schema_version": 1, "hosts": {name: document for name, (document, _) in found.items()}}
        opt.answer(args.json, document, [line for _, lines in found.values() for line in lines])
        return
    opt.answer(args.json, *_analyzed(args.run_paths, "", args, options))


def _analyzed(paths: list[Path], below: str, args: argparse.Namespace, options: Options) -> tuple[Row, list[str]]:
    """Write the tables of runs, those for ``--out`` ``below`` it; what they are, as a document and as lines."""
    loaded, lines = api.load(*paths, allow_different=args.allow_different, options=options), []
    note(*loaded.run.notes)
    ids, out = tuple(source.run_id for source in loaded.run.sources), args.out and args.out / below
    if loaded.run.parts:
        ids, root = api.save_sweep(loaded, out), out or loaded.home
        out = root / "analysis"
        lines = [f"{root / part / 'analysis'}  the run's own tables" for part in ids]
        lines += [f"{root / name}.csv  as TR121's" for name in TR121_TABLES]
    folder, notes = loaded.save_tables(out), loaded.analysis.notes
    for name, table in loaded.tables.items():
        why = f"  ({notes[name]})" if name in notes else ""
        lines.append(f"{folder / name}.csv  {table.height} rows{why}")
    document = {
        "schema_version": 1,
        "directory": str(folder),
        "runs": list(ids),
        "tables": {name: table.height for name, table in loaded.tables.items()},
        "notes": notes,
        "run_notes": list(loaded.run.notes),
    }
    return document, lines
