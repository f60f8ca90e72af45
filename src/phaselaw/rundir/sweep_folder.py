"""A sweep as a folder of runs, one for each decode budget: TR121's layout, ``gen_8``, ``gen_32`` and so on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from phaselaw.errors import AnalysisError
from phaselaw.laws.summary import BUDGET
from phaselaw.rundir.read import METRICS, Run, load

_RUN = re.compile(r"gen_([0-9]{1,7})")


def runs_of(folder: Path) -> dict[int, Path]:
    """The runs of a sweep by their decode budget, ascending; none where the folder is no sweep of this layout."""
    if not folder.is_dir() or (folder / METRICS).exists():
        return {}
    named = ((_RUN.fullmatch(path.name), path) for path in folder.iterdir())
    found = {int(match[1]): path for match, path in named if match and (path / METRICS).is_file()}
    return dict(sorted(found.items()))


def load_sweep(folder: Path, runs: dict[int, Path]) -> tuple[Run, dict[int, Run]]:
    """The whole sweep as one run, and its runs by budget.

    Rows that state no budget have that of their folder's name. Raises `AnalysisError` as reading a run does, and where
    rows state another budget than their folder's name.
    """
    parts = {budget: _with_budget(load(path), budget, path) for budget, path in runs.items()}
    return _joined(folder, list(parts.values())), parts


def _with_budget(run: Run, budget: int, path: Path) -> Run:
    stated = run.rows[BUDGET].drop_nulls().unique().to_list()
    if any(other != budget for other in stated):
        said = ", ".join(f"{other:g}" for other in sorted(stated))
        raise AnalysisError(f"{path / METRICS}: its rows are of {said} generated tokens; rename the folder, gen_N")
    return Run(
        path=run.path,
        rows=run.rows.with_columns(pl.lit(budget, dtype=pl.Int64).alias(BUDGET)),
        models=run.models,
        manifest=run.manifest,
        sources=run.sources,
        notes=run.notes,
    )


def _joined(folder: Path, parts: Sequence[Run]) -> Run:
    """The runs' rows as those of one run: they are no repetitions of each other, so there is no noise between them."""
    models = [part.models for part in parts if part.models.width]
    return Run(
        path=folder,
        rows=pl.concat([part.rows for part in parts], how="diagonal_relaxed").with_columns(
            pl.lit(folder.resolve().name).alias("run")
        ),
        models=pl.concat(models, how="diagonal_relaxed").unique(maintain_order=True) if models else parts[0].models,
        manifest=parts[0].manifest,
        sources=tuple(source for part in parts for source in part.sources),
    )
