"""``phaselaw run``: measure a study, analyse it and report, in one command."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from phaselaw.commands import COMMANDS
from phaselaw.errors import NotReadyError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from phaselaw.rundir.write import RunDirectory
    from phaselaw.study.model import Study

DEFAULT_STUDY = "gpt2-ladder-cpu"

EXAMPLES = """\
examples:
  phaselaw run                                      the default study: seven GPT-2 sizes, this CPU
  phaselaw run --dry-run                            the same schedule with simulated latencies, in seconds
  phaselaw run my-study.yaml --out runs/a           your own study, into a folder of your choice
  phaselaw run --models models/tiny-gpt2 --set repetitions=5
  phaselaw run --resume runs/a                      go on with what an interrupted run still lacks

Ctrl-C ends after the current call with everything kept; a second Ctrl-C ends at once.
"""

EXIT_OK, EXIT_SOME_CALLS_FAILED, EXIT_INTERRUPTED = 0, 3, 130


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``run`` to the command line."""
    parser = subparsers.add_parser(
        "run",
        help=COMMANDS["run"],
        description="Measure a study call by call, fit its laws and write the report.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The study and the options of a run."""
    parser.add_argument(
        "study", nargs="?", metavar="STUDY", help=f"a study file or a shipped name (default: {DEFAULT_STUDY})"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: runs/NAME/TIME)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with an interrupted run")
    parser.add_argument("--backends", type=_comma_list, metavar="A,B", help="only these backends of the study")
    parser.add_argument("--models", type=_comma_list, metavar="A,B", help="only these models")
    parser.add_argument("--scenarios", type=_comma_list, metavar="A,B", help="only these scenarios")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="override a study key"
    )
    parser.add_argument("--available", action="store_true", help="skip what this machine lacks, with a notice")
    parser.add_argument("--dry-run", action="store_true", help="simulate the engines: checks a study in seconds")
    parser.add_argument(
        "--allow-changed",
        action="store_true",
        help="with --resume: go on although the study or the host changed; the manifest records both",
    )


def run(args: argparse.Namespace) -> int:
    """Measure, analyse, report. Returns 0, or 3 where some calls failed, or 130 where it was interrupted."""
    from rich.console import Console

    if args.resume is not None and args.out is not None:
        raise UsageError("--resume goes on in the run's own directory; leave --out away")
    notes = Console(stderr=True, highlight=False)
    with _directory(args, notes) as directory:
        interrupted = False
        if directory.finished:
            notes.print(f"{directory.path} is complete: nothing to measure", markup=False, soft_wrap=True)
            directory.write_derived()
        else:
            prepare_models(directory.study, notes)
            interrupted = _measure(directory, notes)
            directory.finish("interrupted" if interrupted else "complete")
        path, failed = directory.path, sum(call.status != "ok" for call in directory.calls)
    if interrupted:
        notes.print(f"stopped; everything measured is kept. Go on with: phaselaw run --resume {path}", markup=False)
        return EXIT_INTERRUPTED
    _analyse_and_report(path)
    if failed:
        notes.print(f"{failed} calls failed; their rows say why: phaselaw show {path}", markup=False)
        return EXIT_SOME_CALLS_FAILED
    return EXIT_OK


def _comma_list(text: str) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)


def _load_study(args: argparse.Namespace) -> Study:
    from phaselaw.ladder.spec import LADDER
    from phaselaw.study.model import load_study

    study = load_study(
        args.study or DEFAULT_STUDY,
        settings=args.settings,
        backends=args.backends,
        models=args.models,
        scenarios=args.scenarios,
    )
    sizes = {model.name: (model.params / 1e6, model.n_layer) for model in LADDER}
    return study.as_simulated(sizes) if args.dry_run else study


def _directory(args: argparse.Namespace, notes: Console) -> RunDirectory:
    """The run directory, locked: a fresh one, or the one to go on with."""
    from phaselaw.machine import identity as telemetry
    from phaselaw.rundir.write import RunDirectory

    host: dict[str, Any] = telemetry.host()
    if args.resume is not None:
        host |= _limits(host, kept_only=True, notes=notes)
        changes_study = args.study or args.settings or args.backends or args.models or args.scenarios or args.dry_run
        study = _load_study(args) if changes_study else None
        return RunDirectory.resume(args.resume, study=study, argv=sys.argv, host=host, allow_changed=args.allow_changed)
    study, skipped = _only_what_can_run(_load_study(args), available=args.available, notes=notes)
    host |= _limits(host, kept_only=all(each.kind == "simulated" for each in study.backends), notes=notes)
    asked = {
        "study_source": args.study or DEFAULT_STUDY,
        "allow_lists": {name: getattr(args, name) for name in ("backends", "models", "scenarios")},
    }
    return RunDirectory.create(args.out, study=study, argv=sys.argv, host=host, skipped=skipped, asked=asked)


def _limits(host: Mapping[str, Any], *, kept_only: bool, notes: Console) -> dict[str, Any]:
    """The part ``limits`` of the host's description: kept ones, or those measured now; empty where there are none."""
    from phaselaw.machine.kept import kept_limits, limits_of

    if kept_only:
        limits = kept_limits(host)
        return {} if limits is None else {"limits": limits.to_json()}
    try:
        with notes.status("measuring what this machine can do (a few seconds, then kept: phaselaw host)"):
            return {"limits": limits_of(host).to_json()}
    except NotReadyError as error:
        notes.print(f"{error}; latencies will stand without them", markup=False, soft_wrap=True)
        return {}


def _only_what_can_run(study: Study, *, available: bool, notes: Console) -> tuple[Study, list[str]]:
    """The part of a study that can run here, and what was left out: what is optional, with ``available`` anything."""
    from phaselaw.engines.readiness import lacks, runnable_part

    lacking = lacks(study)
    if not lacking:
        return study, []
    skipped = [lack.what for lack in lacking]
    needed = [lack.what for lack in lacking if not lack.optional]
    if needed and not available:
        raise NotReadyError(f"this machine lacks: {'; '.join(needed)} (--available skips what needs them)")
    for what in skipped:
        notes.print(f"skipped: {what}", markup=False, soft_wrap=True)
    return runnable_part(study, lacking), skipped


def prepare_models(study: Study, notes: Console) -> None:
    """Build and export what is not cached yet, so that a load time never holds a build."""
    from phaselaw.engines.llamacpp import prepare
    from phaselaw.ladder.build import resolve
    from phaselaw.ladder.spec import ladder_model

    for model in study.models:
        with notes.status(f"building {model.name}"):
            if model.kind == "hf" and ladder_model(model.name) is not None:
                resolve(model.name)
            for backend in study.backends:
                if backend.kind == "llamacpp" and model.runs_on(backend):
                    prepare(backend, model)


@contextmanager
def stop_on_interrupt(notes: Console) -> Iterator[Callable[[], bool]]:
    """Within this, the first Ctrl-C only sets a flag, read by the yielded function; a second one interrupts."""
    asked = False

    def note_first(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        # Python refuses a print that interrupts a print; the flag is what matters.
        with suppress(RuntimeError):
            notes.print("stopping after the current call; Ctrl-C again to stop at once")

    before = {number: signal.signal(number, note_first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _measure(directory: RunDirectory, notes: Console) -> bool:
    """Measure what the run still lacks; true where it was asked to stop before the end."""
    from phaselaw.commands.progress import RunProgress
    from phaselaw.engines import module_for
    from phaselaw.measure import measure, schedule

    study, done = directory.study, directory.done
    engines = {backend.name: module_for(backend.kind).create(backend) for backend in study.backends}
    one_at_a_time = frozenset(name for name, engine in engines.items() if not engine.holds_many_models)
    plan = schedule(study, grouped_backends=one_at_a_time)
    todo = [planned for planned in plan if planned.call_id not in done]
    with (
        stop_on_interrupt(notes) as should_stop,
        RunProgress(todo, already_done=len(plan) - len(todo), console=notes) as progress,
    ):
        for event in measure(
            study,
            engines=engines,
            done=done,
            process_idx=directory.process_idx,
            first_call_idx=directory.next_call_idx,
            should_stop=should_stop,
        ):
            directory.append(event)
            progress.show(event)
        return should_stop() and not directory.done.issuperset(planned.call_id for planned in plan)


def _analyse_and_report(path: Path) -> None:
    """Write ``analysis/`` and ``report.md`` into the run, and the summary to stdout."""
    from phaselaw.commands.analyze import analyze_run
    from phaselaw.commands.report import report_run

    report_run(path, analyze_run(path))
