"""Measure a study call by call, fit its laws and write the report.

examples:
  phaselaw run                                      the default study: seven GPT-2 sizes, this CPU
  phaselaw run --dry-run                            the same schedule with simulated latencies, in seconds
  phaselaw run my-study.yaml --out runs/a           your own study, into a folder of your choice
  phaselaw run --models models/tiny-gpt2 --set repetitions=5
  phaselaw run qwen2.5:7b                           a model of a server that runs here, as `phaselaw quick` has it
  phaselaw run --resume runs/a                      go on with what an interrupted run still lacks
  phaselaw run --wait-quiet 5min                    begin when nothing else keeps this machine busy
  phaselaw run --resume runs/a --retry-failed       make its failed calls again too
  phaselaw run my-study.yaml --ray auto             on all hosts of a Ray cluster: docs/many-machines.md

Ctrl-C ends after the current call with everything kept; a second Ctrl-C ends at once.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from phaselaw.commands.console import RunProgress, notes_console
from phaselaw.commands.options import a_path, add_count, add_permits, duration, names, option, switch, take_permits
from phaselaw.errors import BAD_ANSWER, DONE, INTERRUPTED, NotReadyError, StudyError, UsageError, near
from phaselaw.ladder.spec import LADDER
from phaselaw.measure import begin, replicates
from phaselaw.measure.on_ray import HERE, Hosts
from phaselaw.measure.quick import LocalServer, quick_study, serving
from phaselaw.records import duration as in_words
from phaselaw.rundir.write import RunDirectory, write_derived
from phaselaw.study.file import full_names, load_study, shipped_studies, study_path

DEFAULT_STUDY = "gpt2-ladder-cpu"
SloMs = tuple[float, float]
"""What a user waits at most: to the first token, and from one token to the next."""
QUICK_SLO_MS: SloMs = 500.0, 50.0


def add_options(parser: argparse.ArgumentParser) -> None:
    study = f"a study file, a shipped name, or a model that a local server has (default: {DEFAULT_STUDY})"
    option(parser, "study", "STUDY", study, nargs="?")
    option(parser, "--out", "DIR", "run directory (default: runs/NAME/TIME)", type=a_path)
    option(parser, "--resume", "RUN", "go on with an interrupted run", type=a_path)
    option(parser, "--backends", "A,B", "only these backends of the study", type=names)
    option(parser, "--models", "A,B", "only these models", type=names)
    option(parser, "--scenarios", "A,B", "only these scenarios", type=names)
    add_count(parser, "--replicates", "measure all of it so many times", metavar="R")
    option(parser, "--set", "KEY=VALUE", "override a study key", dest="settings", action="append", default=[])
    switch(parser, "--available", "skip what this machine lacks, with a notice")
    switch(parser, "--dry-run", "simulate the engines: checks a study in seconds")
    changed = "with --resume: go on although the study or the host changed; the manifest records both"
    switch(parser, "--allow-changed", changed)
    wait = "wait so long for other work to end, and measure nothing where it does not: 90s, 5min, 1h"
    option(parser, "--wait-quiet", "TIME", wait, duration)
    over = "measure on the hosts of this Ray cluster (HOST:PORT or auto; left out: one of this machine alone)"
    option(parser, "--ray", "ADDRESS", over, nargs="?", const=HERE)
    option(parser, "--ray-label", "KEY=VALUE", "with --ray: only on nodes with this label")
    switch(parser, "--share-machine", "with --ray: measure on several nodes of one machine, which disturb each other")
    add_permits(parser)
    switch(parser, "--retry-failed", "with --resume: make the calls that failed again")


def run(args: argparse.Namespace) -> int:
    """Measure, analyse, report. Returns 0, or 3 where some calls failed, or 130 where it was interrupted."""
    if args.resume is not None and args.out is not None:
        raise UsageError("--resume goes on in the run's own directory; leave --out away")
    if args.retry_failed and args.resume is None:
        raise UsageError("--retry-failed makes calls of a run again; name it with --resume RUN")
    if args.replicates is not None:
        args.settings = [*args.settings, f"replicates={args.replicates}"]
    take_permits(args)
    if not args.settings and (server := _served_here(args.study)) is not None:
        return quick(server, out=args.out)
    notes = notes_console()
    tell = partial(notes.print, markup=False, soft_wrap=True)
    with ExitStack() as opened:
        how = {"label": args.ray_label, "share_machine": args.share_machine, "wait_s": args.wait_quiet, "tell": tell}
        hosts = opened.enter_context(closing(Hosts(args.ray, **how))) if args.ray else None
        directory = opened.enter_context(_directory(args, notes, tell, hosts.look if hosts else None))
        asked_to_stop, left = False, 0
        if directory.finished:
            tell(f"{directory.path} is complete: nothing to measure")
            write_derived(directory.path)
        else:
            if args.resume is not None and hosts is None:
                begin.begin_quietly(directory.study, wait_s=args.wait_quiet, tell=tell)
            asked_to_stop, left = _measure(directory, hosts, notes)
    return _reported(directory, notes, stopped=asked_to_stop, left=left)


def quick(server: LocalServer, *, out: Path | None, slo_ms: SloMs = QUICK_SLO_MS) -> int:
    """Measure one model of a server for about a minute; prints five lines and how to go on; exit codes as `run`."""
    notes, (model, *others) = notes_console(), server.models
    tell = partial(notes.print, markup=False, soft_wrap=True)
    tell(f"{model} on {server}" + (f"; it has also {', '.join(others[:5])}" if others else ""))
    with notes.status("one call, for its pace; a model that is not loaded takes longer"):
        study, seconds = quick_study(server)
    tell(f"measuring for about {in_words(seconds)} (Ctrl-C keeps what there is)")
    asked = {"study_source": "phaselaw quick", "allow_lists": {}}
    with begin.new_run(study, out=out, argv=sys.argv, asked=asked, available=False, tell=tell) as directory:
        asked_to_stop, left = _measure(directory, None, notes)
    return _reported(directory, notes, stopped=asked_to_stop, left=left, slo_ms=slo_ms)


def _served_here(name: str | None) -> LocalServer | None:
    """The server here that has a model of this name, where it is the name of no study."""
    try:
        study_path(name or DEFAULT_STUDY)
    except StudyError as unknown:
        if str(name).endswith((".yaml", ".yml")) or near(str(name), shipped_studies()):
            raise
        try:
            return serving(name)
        except NotReadyError as error:
            if ":" in str(name):  # a model's tag
                raise
            raise StudyError(f"{unknown}; as a model: {str(error).partition('; start')[0]}") from None
    return None


def _reported(run: RunDirectory, notes: Console, *, stopped: bool, left: int, slo_ms: SloMs | None = None) -> int:
    """Analyse and report: shortly where users wait so long at most, else as ``report`` does; returns the exit code."""
    path, failed = run.path, sum(call.status != "ok" for call in run.calls)
    if stopped and left:
        go_on = f"stopped; everything measured is kept. Go on with: phaselaw run --resume {path}"
        notes.print(go_on, markup=False, soft_wrap=True)
        return INTERRUPTED
    # Loaded when all is measured: no call waits for what only the analysis needs.
    from phaselaw import api
    from phaselaw.commands.report import show_report
    from phaselaw.rundir.read import runs_by_host

    for each in runs_by_host(path) or [path]:
        loaded = api.load(each)
        loaded.save_tables()
        show_report(loaded, slo_ms=slo_ms)
    if failed or left:
        lost = f"{failed} calls failed{f', {left} were not made' if left else ''}; why: phaselaw show {path}"
        notes.print(f"{lost}. Make them: phaselaw run --resume {path} --retry-failed", markup=False, soft_wrap=True)
        return BAD_ANSWER
    return DONE


def _directory(args: argparse.Namespace, notes: Console, tell: begin.Tell, look: begin.Look | None) -> RunDirectory:
    """The run directory, locked: a fresh one, or the one to go on with."""
    lists = {name: getattr(args, name) for name in ("backends", "models", "scenarios")}
    study = None
    if args.resume is None or args.study or args.settings or any(lists.values()) or args.dry_run:
        study = load_study(args.study or DEFAULT_STUDY, settings=args.settings, **lists)
        if args.dry_run:
            asked_for = study.calls_planned()
            study = study.as_simulated({model.name: (model.params / 1e6, model.n_layer) for model in LADDER})
            if (calls := study.calls_planned()) < asked_for:
                tell(f"a server is simulated as one client: {calls:,} of the study's {asked_for:,} calls")
    if study is None or args.resume is not None:
        host = begin.host_of(False, tell=tell) if look is None else begin.driver()
        again = {"allow_changed": args.allow_changed, "retry_failed": args.retry_failed}
        return RunDirectory.resume(args.resume, study=study, argv=sys.argv, host=host, **again)
    if args.models:
        lists["models"] = full_names(args.models, {model.name for model in study.models})
    asked = {"study_source": args.study or DEFAULT_STUDY, "allow_lists": lists}
    how = {"available": args.available, "wait_s": args.wait_quiet, "look": look}
    with notes.status("looking at this machine; the first time it is measured, for a few seconds"):
        return begin.new_run(study, out=args.out, argv=sys.argv, asked=asked, tell=tell, **how)


@contextmanager
def stop_on_interrupt(notes: Console, path: Path) -> Iterator[Callable[[], bool]]:
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
            kept = f"stopping after the current call; Ctrl-C again to stop at once. What is measured is kept in {path}"
            notes.print(kept, markup=False, soft_wrap=True)

    before = {number: signal.signal(number, note_first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _measure(directory: RunDirectory, hosts: Hosts | None, notes: Console) -> tuple[bool, int]:
    """Measure what the run lacks, and finish it: whether it was asked to stop, and how many calls are left."""
    with notes.status("building models") as status:
        for name in begin.prepare_models(directory.study) if hosts is None else ():
            status.update(f"building {name}")
    with stop_on_interrupt(notes, directory.path) as should_stop:
        todo, already_done, events = (hosts.measure if hosts else replicates.measure_run)(directory, should_stop)
        with RunProgress(todo, already_done=already_done, console=notes) as progress, closing(events):
            for event in events:
                progress.show(event)
        left = len({call.call_id for call in todo} - directory.done)
        directory.finish("interrupted" if left else "complete")
        return should_stop(), left
