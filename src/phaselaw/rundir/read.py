"""A run as it is read for analysis: its rows, its models, its manifest. Ours, TR121's, or a bare ``metrics.csv``."""

import csv
import dataclasses
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from phaselaw.errors import AnalysisError
from phaselaw.files import FORMULA_STARTS, json_object, sha256_of
from phaselaw.records import ALL, LARGEST, PHASES, Run, Source, duration
from phaselaw.rundir.columns import MEASURED
from phaselaw.rundir.conditions import differences, of_replicates
from phaselaw.rundir.derive import HASHES, HOST, HOSTS, MANIFEST, METRICS, MODELS, derived, is_sound
from phaselaw.rundir.journal import JOURNAL, is_being_written, read_journal
from phaselaw.tables import BUDGET, IS_LATENCY, constants

REQUIRED = ("backend", "backend_kind", "model", "scenario", "mode", "status", "latency_ms")
"""Columns that no analysis can do without, beside one of `PARAMETER_COLUMNS`."""

_IDENTITY = ("backend", "backend_kind", "model", "scenario", "mode")
"""Columns that say what a row is of: none may be empty."""

PARAMETER_COLUMNS = ("params_millions_measured", "params_millions", "params_millions_config", "params_millions_named")
"""Parameter counts in millions, the most trusted first: what was measured comes before any label."""

ALIASES = {"prompt_tokens_raw": "prompt_tokens"}
"""A column's name in an early TR121 run."""

_READ = {column.name: column.read for column in MEASURED} | dict.fromkeys(ALIASES.values(), "number")
NUMBERS, OPTIONAL_TEXT = (
    [name for name, read in _READ.items() if read == kind] for kind in ("number", "optional text")
)
_TYPES = {name: pl.Float64 if read == "number" else pl.String for name, read in _READ.items() if read != "unread"}
"""Columns of known type; the others are left to other readers."""

SIMULATED = "SIMULATED: latencies come from a stated law, nothing was measured"
_EMPTY = ["", "nan", "NaN"]
_READ_WHOLE_BYTES, _HEAD_BYTES = 2**29, 2**20
_MODEL_TYPES = {"model": pl.String} | dict.fromkeys(("n_layer", "n_embd", "n_head", "n_positions"), pl.Int64)

_RELIED_ON: dict[str, Any] = {"host": {"limits": dict}, "processes": [{"host": {"limits": dict}}], HASHES: dict}
_RELIED_ON |= {"engines": [{"name!": str, "kind!": str, "settings": dict}], "rows_expected": int, "rows_present": int}
_RELIED_ON |= {"study": {"scenarios": [{"name!": str, "prompt_tokens": int}], "backends": [{"name!": str}]}}
_RELIED_ON |= {"status": str, "order": str, "platform": dict, "nvml": dict, "records_expected": int, "replicates": int}
_RELIED_ON |= {"resumed_replicates": [int], "calls_abandoned": int}
_RELIED_ON |= {key: [str] for key in ("argv", "skipped", "kept_servers", "backends")}
"""What is relied on in a manifest, by type: the entries of a list are alike, and what has a ``!`` is there."""


def load(path: Path | str) -> Run:
    """Read a run directory (ours or TR121's) or a ``metrics.csv``.

    Of ``metrics.csv`` only the columns named here are read, since a file may be mostly prompts and hashes. A folder of
    runs ``gen_N`` is a run as well. Raises `AnalysisError` naming the file where it is absent, no CSV, or lacks a
    required column.
    """
    path = Path(path)
    if swept := runs_of(path):
        return _sweep(path, swept)
    host = json_object(path / HOST, AnalysisError, "host") if (path / HOST).is_file() else None
    folder = path if host is None else path.resolve().parents[1]
    metrics = folder / METRICS if folder.is_dir() else folder
    if not metrics.is_file():
        raise AnalysisError(f"{metrics}: no such file; give a run directory or a metrics.csv")
    manifest, tables = _as_kept(metrics.parent) if metrics.name == METRICS else ({}, {})
    run_id = str(manifest.get("run_id") or (metrics.parent.resolve().name if manifest else path.stem))
    rows = _read_rows(tables.get(METRICS, metrics), str(metrics))
    if host is not None:
        rows, run_id = rows.filter(pl.col("host") == host["name"]), f"{run_id} {host['name']}"
        manifest = manifest | {"host": host, "run_id": run_id}
    rows = normalised(rows, where=str(metrics), run=run_id)
    if len(names := sorted(rows["host"].drop_nulls().unique())) > 1:
        where = f"{path / HOSTS}/NAME has what one measured, phaselaw analyze {path} --across-hosts pools"
        raise AnalysisError(f"{path}: it was measured on several hosts ({', '.join(names)}): {where}")
    models = tables.get(MODELS, metrics.parent / MODELS)
    odd = rows.filter((pl.col("status") == "ok") & ~IS_LATENCY.fill_null(False)).height
    wanted, there, status = (manifest.get(key) for key in ("rows_expected", "rows_present", "status"))
    unfinished: tuple[str, ...] = ()
    if isinstance(wanted, int) and isinstance(there, int) and (there < wanted or status not in (None, "complete")):
        so_far = f"{there // len(PHASES)} of {wanted // len(PHASES)} calls"
        unfinished = (f"{path}: {so_far}, {ascii(status or 'interrupted')[1:-1]}",)
    notes = (*unfinished, *(f"{path}: {what}" for what in of_replicates(manifest)))
    if odd:
        notes += (f"{metrics}: {odd} row(s) are ok and have no latency; they are left out",)
    clock = rows.select("host", "call_idx", "started_at_unix", alone=pl.col("concurrency").fill_null(1) == 1)
    clock = clock.filter("alone", pl.col("call_idx").is_not_null()).sort("call_idx")
    back_s = clock.select(pl.col("started_at_unix").diff().over("host").min()).item()
    if isinstance(back_s, float) and back_s < -1:
        notes += (f"{path}: the clock was set back by {duration(-back_s)}; no order or latency of calls goes by it",)
    if abandoned := manifest.get("calls_abandoned"):
        notes += (f"{path}: {abandoned} calls of hosts that were lost are left out, and were measured anew",)
    if (rows["backend_kind"] == "simulated").any():
        notes += (f"{path}: {SIMULATED}",)
    is_there = isinstance(models, bytes) or models.is_file()
    return Run(
        path=path,
        rows=rows,
        models=read_csv(models, _MODEL_TYPES) if is_there else pl.DataFrame(),
        manifest=manifest,
        sources=(Source(run_id=run_id, path=path, manifest=manifest),),
        notes=notes,
        unfinished=unfinished,
    )


def runs_by_host(path: Path) -> list[Path]:
    """What each host measured of a run, as runs; none where it was measured on one."""
    return sorted(each.parent for each in path.glob(f"{HOSTS}/*/{HOST}"))


def _as_kept(folder: Path) -> tuple[dict[str, Any], Mapping[str, bytes]]:
    """A run's manifest (empty: it has none) and those of its tables whose files can't stand for its journal.

    While a run is going on, and after a kill, its files are older than its journal: then all is derived from that.
    Raises `AnalysisError` where manifest or table are not as they were written.
    """
    path, journal = folder / MANIFEST, folder / JOURNAL
    manifest = json_object(path, AnalysisError, "manifest") if path.is_file() else None
    for odd in _misfits(manifest, _RELIED_ON, "the document"):
        raise AnalysisError(f"{path}: no manifest: {odd}")
    if journal.is_file() and (manifest is None or manifest.get("status") == "running"):
        found = derived(folder, read_journal(journal))
        status = "going on" if is_being_written(journal) else "interrupted"
        return found.manifest | {"status": status}, found.tables
    if manifest is None:
        return {}, {}
    tables = {folder / name: wanted for name, wanted in (manifest.get(HASHES) or {}).items()}
    changed = [table for table, wanted in tables.items() if table.is_file() and sha256_of(table) != wanted]
    for table in changed if is_sound(manifest) else [path]:
        raise AnalysisError(f"{table}: it is not as it was written; phaselaw show --verify {folder} tells where")
    return manifest, {}


def _misfits(value: Any, kinds: Any, place: str) -> Iterator[str]:
    """In words, where a document does not have the types that are relied on."""
    kind = type(kinds) if isinstance(kinds, dict | list) else kinds
    if value is not None and not isinstance(value, kind):
        yield f"{place} is of type {type(value).__name__}, not {kind.__name__}"
    elif isinstance(value, list):
        for each in value if isinstance(kinds, list) else ():
            yield from _misfits(each, kinds[0], f"an entry of {place}")
            if each is None:
                yield f"an entry of {place} is empty"
    elif isinstance(value, dict):
        for key, inner in kinds.items() if isinstance(kinds, dict) else ():
            if key.endswith("!") and value.get(key[:-1]) is None:
                yield f"{place} has no {key[:-1]}"
            yield from _misfits(value.get(key.removesuffix("!")), inner, f"{key.removesuffix('!')} of {place}")


def load_all(paths: Sequence[Path | str], *, allow_different: bool = False) -> Run:
    """Read runs of one study on one host as one; a single path is `load`.

    Raises `AnalysisError` as `load` does, where a run is given twice, and where study or host differ, naming the
    differences; ``allow_different`` makes notes of these. A run without a manifest is pooled with a note.
    """
    if not paths:
        raise AnalysisError("no run given; give one or more run directories")
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise AnalysisError("a run is given twice; its noise would be counted as that of several runs")
    return pooled([load(path) for path in paths], allow_different=allow_different)


def pooled(parts: Sequence[Run], *, allow_different: bool = False) -> Run:
    """Several runs, at least one, as one; see `load_all`."""
    first = parts[0]
    if len(parts) == 1:
        return first
    notes = _checked_alike(parts, allow_different=allow_different)
    rows: dict[str, pl.DataFrame] = {}
    for part in parts:
        if any(part.rows.drop("run").equals(other.drop("run")) for other in rows.values()):
            raise AnalysisError(f"{part.path} holds the same rows as another run given; pool each run once")
        run_id = part.sources[0].run_id
        numbered = (run_id, *(f"{run_id}#{n}" for n in range(2, len(parts) + 1)))
        name = next(each for each in numbered if each not in rows)
        rows[name] = part.rows.with_columns(pl.lit(name).alias("run"))
    # A model whose size one run measured, and another only labelled, has the measured one throughout.
    measured = pl.col("params_millions_measured").drop_nulls().unique()
    model, size = ["backend", "model", "model_kind"], "params_millions_effective"
    known = pl.when(measured.len().over(model) == 1).then(measured.first().over(model)).otherwise(size)
    return dataclasses.replace(
        first,
        rows=pl.concat(rows.values(), how="diagonal_relaxed").with_columns(known.alias(size)),
        models=_models_of(parts),
        sources=tuple(
            dataclasses.replace(part.sources[0], run_id=name) for name, part in zip(rows, parts, strict=True)
        ),
        notes=(*(note for part in parts for note in part.notes), *notes),
        unfinished=tuple(line for part in parts for line in part.unfinished),
        parts=(),
    )


def _models_of(parts: Sequence[Run]) -> pl.DataFrame:
    models = [part.models for part in parts if part.models.width]
    return pl.concat(models, how="diagonal_relaxed").unique(maintain_order=True) if models else parts[0].models


def _checked_alike(parts: Sequence[Run], *, allow_different: bool) -> list[str]:
    """Notes on what could not be checked; raises `AnalysisError` where the runs are not of one study on one host."""
    trusted = "no manifest, so that it is of the same study and host is taken on trust"
    notes = [f"{part.path}: {trusted}" for part in parts if not part.manifest]
    known, lines = [(part.path, part.manifest) for part in parts if part.manifest], []
    for path, manifest in known[1:]:
        lines += [f"{known[0][0]} and {path} differ in {line}" for line in differences(known[0][1], manifest)]
    if lines and not allow_different:
        more = f" (and {len(lines) - 4} more)" if len(lines) > 4 else ""
        only = "only runs of one study on one host are pooled (--allow-different pools)"
        raise AnalysisError(f"{'; '.join(lines[:4])}{more}; {only}")
    return notes + [f"pooled although {line}" for line in lines]


def _read_rows(content: Path | bytes, where: str) -> pl.DataFrame:
    """The rows of a ``metrics.csv``; columns of `_TYPES` have their types, whatever they look like."""
    try:
        names = _names(content)
        wanted = [name for name in names if name in _TYPES]
        schema = {name: _TYPES.get(name, pl.String) for name in names}
        # Bytes read here go back to the system at once; those that polars reads itself, in pieces as a large file needs
        # it, stay with its allocator for seconds: a quarter of a gigabyte on top of what follows.
        if isinstance(content, Path) and content.stat().st_size <= _READ_WHOLE_BYTES:
            content = content.read_bytes()
        scan = pl.scan_csv(content, schema=schema, null_values=_EMPTY, glob=False)
        table = scan.select(wanted).collect(engine="streaming")
        del content, scan
        # A constant takes as much memory as a latency, in every frame filtered from this one; `first` is kept once.
        table = table.with_columns(pl.col(constants(table)).first())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(where, error) from None
    return _unescaped(table)


def read_csv(content: Path | bytes, types: Mapping[str, Any]) -> pl.DataFrame:
    """A CSV with the types of some columns given and those of others seen; raises `AnalysisError`."""
    where = content if isinstance(content, Path) else "a run's journal"
    try:
        names = _names(content)
        content = content.read_bytes() if isinstance(content, Path) else content  # polars takes no name but UTF-8
        known = {name: types[name] for name in names if name in types}
        try:
            table = pl.read_csv(content, schema_overrides=known, null_values=_EMPTY, infer_schema_length=1000)
        except pl.exceptions.ComputeError:
            # A column of someone else's whose type shows late in the file: it is text.
            text = dict.fromkeys(names, pl.String) | known
            table = pl.read_csv(content, schema_overrides=text, null_values=_EMPTY)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(where, error) from None
    return _unescaped(table)


def _names(content: Path | bytes) -> list[str]:
    """The names of a CSV's columns; ValueError where one stands twice, which polars would rename."""
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
        head = file.read(_HEAD_BYTES)
    line = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].removesuffix(b"\r")
    if b"\r" in line:
        raise pl.exceptions.ComputeError("its lines end with CR alone; end them with LF")
    try:
        names = next(csv.reader([line.decode("utf-8", "replace")]), [])
    except csv.Error as error:
        raise pl.exceptions.ComputeError(f"its first line is no header: {error}") from None
    for name, times in Counter(names).items():
        if times > 1:
            raise pl.exceptions.DuplicateError(f"the column {name[:60]!r} stands twice")
    return names


def _unreadable(where: Path | str, error: Exception) -> AnalysisError:
    return AnalysisError(f"{where}: not a table that can be read: {str(error).splitlines()[0]}")


def _unescaped(table: pl.DataFrame) -> pl.DataFrame:
    """A table with the texts that `phaselaw.files.cell_text` made cells of."""
    marked = table.select(pl.selectors.string().str.starts_with("'").any())
    names = [name for name in marked.columns if marked[name][0]]
    starts = "".join(FORMULA_STARTS).replace("-", r"\-")
    return table.with_columns(pl.col(names).str.replace(f"^'([{starts}'])", "$1"))


def normalised(rows: pl.DataFrame, *, where: str, run: str = "run") -> pl.DataFrame:
    """Rows as `Run.rows` describes them, all of the run ``run``.

    Raises `AnalysisError` naming ``where`` and the columns that it lacks.
    """
    missing = [name for name in REQUIRED if name not in rows.columns]
    if missing:
        raise AnalysisError(f"{where}: required column(s) missing: {', '.join(missing)}")
    rows = rows.filter(pl.col("status").ne_missing("abandoned"))
    counts = [name for name in PARAMETER_COLUMNS if name in rows.columns]
    if not counts:
        raise AnalysisError(f"{where}: no parameter count: one of {', '.join(PARAMETER_COLUMNS)} is required")
    for name, alias in ALIASES.items():
        if name not in rows.columns and alias in rows.columns:
            rows = rows.with_columns(pl.col(alias).alias(name))
    warmup = pl.col("is_warmup").cast(pl.String).str.to_lowercase().is_in(["true", "1", "1.0"]).fill_null(False)
    kind = pl.col("backend_kind").cast(pl.String)
    rows = rows.with_columns(
        *(pl.col(name).cast(pl.Float64) for name in NUMBERS if name in rows.columns),
        *(pl.lit(None, dtype=pl.Float64).alias(name) for name in NUMBERS if name not in rows.columns),
        *(pl.lit(None, dtype=pl.String).alias(name) for name in OPTIONAL_TEXT if name not in rows.columns),
        warmup if "is_warmup" in rows.columns else pl.lit(False).alias("is_warmup"),
        (pl.col("model_kind").fill_null(kind) if "model_kind" in rows.columns else kind).alias("model_kind"),
        pl.lit(run, dtype=pl.String).alias("run"),
    )
    _refuse_unusable(rows, where)
    # Tokens that were computed, padding counted, and their rate, where a file has but the tokens asked for.
    padding = (pl.col("prompt_tokens_compute") - pl.col("prompt_tokens_raw")).fill_null(0.0)
    total = pl.col("tokens_total") + pl.when(pl.col("mode") == "kv_decode").then(0.0).otherwise(padding)
    computed = pl.col("tokens_total_compute").fill_null(total)
    seconds = pl.col("latency_ms") / 1000.0
    size = pl.coalesce([pl.when(pl.col(name).is_finite()).then(pl.col(name)) for name in counts])
    return rows.with_columns(
        pl.col("batch_size").fill_null(1.0).cast(pl.Int64),
        pl.col("gen_tokens_target").cast(pl.Int64),
        pl.col("replicate").fill_null(0.0).cast(pl.Int64),
        size.alias("params_millions_effective"),
        pl.col("prompt_tokens_compute").fill_null(pl.col("seq_len") * pl.col("batch_size")),
        pl.col("tokens_per_s").fill_null(pl.col("tokens_total") / seconds),
    ).with_columns(computed, pl.col("tokens_per_s_compute").fill_null(computed / seconds))


def _refuse_unusable(rows: pl.DataFrame, where: str) -> None:
    """Raise `AnalysisError` where a row does not say what it is of, or counts what can't be counted."""
    if rows.is_empty():
        raise AnalysisError(f"{where}: it has a header and no rows")
    modes, statuses = (rows[name].cast(pl.String).drop_nulls().unique() for name in ("mode", "status"))
    for mode in modes.filter(~modes.is_in(PHASES)):
        raise AnalysisError(f"{where}: mode {mode[:60]!r} is unknown; one of {', '.join(PHASES)}")
    for status in statuses.filter((statuses.str.strip_chars().str.to_lowercase() == "ok") & (statuses != "ok")):
        raise AnalysisError(f"{where}: status {status[:60]!r} would count as failed; write ok")
    for name, missing in rows.select(pl.col(_IDENTITY).null_count()).row(0, named=True).items():
        if missing:
            raise AnalysisError(f"{where}: {missing} row(s) without a {name}; what they measured can't be told")
    if (rows["scenario"].cast(pl.String) == ALL).any():
        raise AnalysisError(f"{where}: a scenario is named {ALL}, as figures over all scenarios are; rename it")
    for name in _IDENTITY:
        lines = rows[name].cast(pl.String).str.contains("\n", literal=True)
        if lines.any():
            raise AnalysisError(f"{where}:{(lines.arg_max() or 0) + 2}: an open quote, or a {name} of many lines")
    for name in ("batch_size", "gen_tokens_target", "replicate"):
        number = pl.col(name)
        whole = number.is_finite() & (number == number.round()) & number.is_between(0, 2**53)
        wrong = rows.filter(~whole.fill_null(True))
        if wrong.height:
            raise AnalysisError(f"{where}: {name} {wrong[name][0]:g} is no count, in {wrong.height} row(s)")
    # A latency that can be none makes its own row useless, not the table: `usable` leaves it out and says so.
    bounded = [name for name in NUMBERS if name != "latency_ms"]
    beyond = rows.select(pl.col(bounded).filter(pl.col(bounded).is_finite()).abs().max() >= LARGEST)
    for name in (name for name in bounded if beyond[name][0]):
        raise AnalysisError(f"{where}: {name} holds a number that was never measured, of {LARGEST:.0e} or more")


_SWEPT = re.compile(r"gen_([0-9]{1,7})")
"""The folder of one decode budget in a sweep as TR121 lays it out: ``gen_8``, ``gen_32`` and so on."""


def runs_of(folder: Path) -> dict[int, Path]:
    """The runs of a sweep by their decode budget, ascending; none where the folder is no sweep of this layout."""
    if not folder.is_dir() or (folder / METRICS).exists():
        return {}
    named = ((_SWEPT.fullmatch(path.name), path) for path in folder.iterdir())
    found = {int(match[1]): path for match, path in named if match and (path / METRICS).is_file()}
    return dict(sorted(found.items()))


def _sweep(folder: Path, runs: Mapping[int, Path]) -> Run:
    """A folder of runs ``gen_N`` as one: they are no repetitions of each other, so there is no noise between them.

    Calls, rounds and processes are numbered on from run to run. Rows that state no budget have that of their folder's
    name. Raises `AnalysisError` as reading a run does, and where rows state another budget than their folder's name.
    """
    parts, numbered = [], []
    so_far = dict.fromkeys(("call_idx", "rep", "process_idx"), 0.0)
    for budget, path in runs.items():
        part = load(path)
        stated = sorted(part.rows[BUDGET].drop_nulls().unique())
        if any(other != budget for other in stated):
            said = ", ".join(f"{other:g}" for other in stated)
            raise AnalysisError(f"{path / METRICS}: its rows are of {said} generated tokens; rename the folder, gen_N")
        rows = part.rows.with_columns(pl.lit(budget, dtype=pl.Int64).alias(BUDGET))
        parts.append(dataclasses.replace(part, rows=rows))
        numbered.append(rows.with_columns(pl.col(name) + first for name, first in so_far.items()))
        most = rows.select(pl.col(so_far).max().fill_null(0.0)).row(0, named=True)
        so_far = {name: first + 1 + most[name] for name, first in so_far.items()}
    name = folder.resolve().name
    manifest = _of_all(parts)
    lines = (line for part in parts[1:] for line in differences(parts[0].manifest, part.manifest))
    unlike = dict.fromkeys(f"{folder}: its runs differ in {line}" for line in lines if line.startswith("host "))
    return Run(
        path=folder,
        rows=pl.concat(numbered, how="diagonal_relaxed").with_columns(pl.lit(name).alias("run")),
        models=_models_of(parts),
        manifest=manifest,
        sources=(Source(run_id=name, path=folder, manifest=manifest),),
        notes=(*(note for part in parts for note in part.notes), *unlike),
        unfinished=tuple(line for part in parts for line in part.unfinished),
        parts=tuple(parts),
    )


_COUNTED = ("rows_expected", "rows_present", "records_expected")
_OWN = ("argv", "config_sha256", "run_id", "run_name")


def _of_all(parts: Sequence[Run]) -> dict[str, Any]:
    """The first manifest, rows counted over all, without what is of that run alone; empty where a part has none."""
    manifests = [part.manifest for part in parts]
    kept: dict[str, Any] = {}
    for key, value in manifests[0].items() if all(manifests) else ():
        values = [each.get(key) for each in manifests]
        counts = [each for each in values if isinstance(each, int)]
        if key in _COUNTED and len(counts) == len(values):
            kept[key] = sum(counts)
        elif key not in (*_COUNTED, *_OWN) or all(each == value for each in values):
            kept[key] = value
    return kept
