"""``phaselaw traffic``: a request log, or an engine's Prometheus page, to a traffic profile that plans go by."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaselaw.commands import COMMANDS

if TYPE_CHECKING:
    from phaselaw.traffic.timings import ReferenceTimes

EXAMPLES = """\
examples:
  phaselaw traffic requests.csv.gz --out profile.json            a log of any size, in little memory
  phaselaw traffic log.jsonl --timestamp-column at --prompt-tokens-column usage.prompt --against runs/a
  phaselaw traffic http://127.0.0.1:8000/metrics --window 60      an engine's Prometheus page, read twice
  phaselaw traffic before.prom after.prom --window 3600           two pages saved an hour apart
  phaselaw plan runs/a --traffic profile.json                    plan with it

Logs are CSV or JSON lines, plain or gzipped. Timestamps are ISO dates or numbers (s, ms, us or ns since 1970, or from
the log's start). Columns are known by common names: Azure's, BurstGPT's, Mooncake's, LiteLLM's, OpenAI's and vLLM's.
More: docs/traffic.md.
"""

COLUMN_OPTIONS = {
    "timestamp": "when the request was sent",
    "prompt_tokens": "tokens of its prompt",
    "output_tokens": "tokens of its answer",
    "ttft": "time to first token",
    "e2e": "end-to-end latency",
    "batch_size": "requests that the engine served at once",
    "worker": "which worker served it",
    "worker_age": "how long that worker had been up",
    "idle": "time since its last request",
    "cold": "whether it was a cold start",
    "model": "which model served it",
}
"""Each meaning that a column can be named for."""

LARGEST_PAGE = 64 * 2**20


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``traffic`` to the command line."""
    parser = subparsers.add_parser(
        "traffic",
        help=COMMANDS["traffic"],
        description="Summarise real traffic: rate, bursts, lengths, latencies; for phaselaw plan --traffic.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", nargs="+", metavar="FILE", help="a request log, or one or two Prometheus pages")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the profile here, as JSON")
    parser.add_argument("--model", metavar="NAME", help="only this model's requests")
    parser.add_argument("--json", action="store_true", help="print the profile as JSON")
    columns = parser.add_argument_group("columns (default: known by common names)")
    for meaning, what in COLUMN_OPTIONS.items():
        columns.add_argument(f"--{meaning.replace('_', '-')}-column", metavar="NAME", help=what)
    columns.add_argument(
        "--timestamp-unit", choices=("s", "ms", "us", "ns"), help="of timestamps that are numbers (default: by size)"
    )
    columns.add_argument(
        "--duration-unit", choices=("s", "ms", "us", "ns"), default="s", help="of durations whose name has none"
    )
    law = parser.add_argument_group("does production agree with the measured law?")
    law.add_argument("--against", type=Path, metavar="RUN", help="compare its step times with logged latencies")
    law.add_argument("--against-model", metavar="NAME", help="which model of RUN (default: its only one)")
    law.add_argument("--against-backend", metavar="NAME", help="which backend of RUN (default: its only one)")
    page = parser.add_argument_group("Prometheus pages")
    page.add_argument(
        "--window", type=float, metavar="SECONDS", help="between two pages; with one URL: read it again after so long"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write and print the profile; returns 0."""
    from phaselaw.errors import RunError, UsageError
    from phaselaw.files import write_json

    if args.window is not None and not 0 < args.window < float("inf"):
        raise UsageError(f"--window {args.window:g}: give a positive number of seconds")
    if args.out is not None and not args.out.resolve().parent.is_dir():
        raise RunError(f"{args.out}: its folder is not there")
    document = _of_pages(args) if _are_pages(args) else _of_log(args)
    if args.out is not None:
        try:
            write_json(args.out, document)
        except OSError as error:
            raise RunError(f"{args.out} can't be written ({error.strerror})") from None
    _note_faults(document)
    if args.json:
        print(json.dumps(document, allow_nan=False))
    else:
        _print(document)
        if args.out is not None:
            print(f"profile: {args.out}")
    return 0


def _are_pages(args: argparse.Namespace) -> bool:
    from phaselaw.errors import UsageError
    from phaselaw.traffic.prometheus import looks_like_a_page

    if len(args.sources) > 2:
        raise UsageError("give one request log, or one or two Prometheus pages")
    if all(_is_url(source) for source in args.sources):
        return True
    pages = [_is_url(source) or looks_like_a_page(_head(source)) for source in args.sources]
    if len(args.sources) == 2 and not all(pages):
        raise UsageError("two files are two Prometheus pages; give one request log")
    return all(pages)


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _head(source: str) -> str:
    from phaselaw.errors import RunError

    try:
        with Path(source).open("rb") as file:
            return file.read(4096).decode("utf-8", errors="replace")
    except OSError as error:
        raise RunError(f"{source}: can't be read ({error.strerror})") from None


def _of_log(args: argparse.Namespace) -> dict[str, Any]:
    from phaselaw.traffic.log import Reading
    from phaselaw.traffic.profile import traffic_profile
    from phaselaw.traffic.timings import Timings

    path = Path(args.sources[0])
    columns = {meaning: getattr(args, f"{meaning}_column") for meaning in COLUMN_OPTIONS}
    reading = Reading(
        columns={meaning: name for meaning, name in columns.items() if name},
        timestamp_unit=args.timestamp_unit,
        duration_unit=args.duration_unit,
        model=args.model,
    )
    law = _law(args)
    with _progress(path) as tell:
        return traffic_profile(path, reading, lambda: Timings(law), tell)


@contextlib.contextmanager
def _progress(path: Path) -> Iterator[Callable[[int], None]]:
    """Takes the bytes read so far: a bar on a terminal, elsewhere a line now and then, on stderr."""
    from rich.console import Console
    from rich.progress import Progress

    from phaselaw.commands.progress import PLAIN_LINE_EVERY_S

    size, console = path.stat().st_size if path.exists() else 0, Console(stderr=True)
    told = time.monotonic()

    def line(read: int) -> None:
        nonlocal told
        if time.monotonic() - told >= PLAIN_LINE_EVERY_S:
            told = time.monotonic()
            print(f"{path.name}: {read / max(size, 1):.0%} read", file=sys.stderr)

    if not console.is_terminal:
        yield line
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(f"reading {path.name}", total=size)
        yield lambda read: bar.update(task, completed=read)


def _law(args: argparse.Namespace) -> ReferenceTimes | None:
    """The step times that the log is held against; raises `UsageError` where they are not one model's."""
    if args.against is None:
        return None
    from phaselaw.errors import UsageError
    from phaselaw.laws.analysis import analyze
    from phaselaw.laws.step_time import step_times
    from phaselaw.plan.workers import workers_of
    from phaselaw.rundir import read as runs
    from phaselaw.traffic.timings import ReferenceTimes

    read = runs.load(args.against)
    analysis = analyze(read)
    times = step_times(analysis.tables["step_time_model"])
    fitting = {
        (backend, model): found
        for (backend, model), found in times.items()
        if args.against_backend in (None, backend) and args.against_model in (None, model)
    }
    if len(fitting) != 1:
        known = ", ".join(f"{model} on {backend}" for backend, model in times)
        raise UsageError(
            f"--against {args.against}: say which with --against-model and --against-backend; it has step times of: "
            f"{known or 'no model'}"
        )
    [((backend, model), found)] = fitting.items()
    workers = [each for each in workers_of(read, analysis, 1.0) if (each.backend, each.model) == (backend, model)]
    doubts = workers[-1].suspect_prefill if workers else ""
    if doubts:
        print(f"phaselaw: note: prefill times of {model} in {args.against} are doubted: {doubts}", file=sys.stderr)
    return ReferenceTimes(
        name=f"{model} on {backend}",
        times=found,
        prefill_factor=workers[-1].prefill_factor if workers else None,
        decode_factor=workers[-1].decode_factor if workers else None,
    )


def _of_pages(args: argparse.Namespace) -> dict[str, Any]:
    from phaselaw.errors import UsageError
    from phaselaw.traffic.prometheus import parse, scrape_profile

    sources = list(args.sources)
    if args.against is not None:
        raise UsageError("--against needs a request log: a Prometheus page does not tell requests apart")
    if len(sources) == 1 and _is_url(sources[0]) and args.window is not None:
        sources = sources * 2
    if len(sources) == 2 and args.window is None:
        raise UsageError("two pages: say with --window how many seconds lie between them")
    pages, began = [], time.monotonic()
    for at, source in enumerate(sources):
        if at and _is_url(source) and args.window is not None:
            time.sleep(max(0.0, began + args.window - time.monotonic()))
        pages.append(parse(_page(source), model=args.model))
    elapsed = time.monotonic() - began if all(map(_is_url, sources)) and len(sources) == 2 else args.window
    now = time.time() if _is_url(sources[-1]) else Path(sources[-1]).stat().st_mtime
    return scrape_profile(pages[-1], earlier=pages[0] if len(pages) == 2 else None, seconds=elapsed, now=now)


def _page(source: str) -> str:
    from urllib.error import URLError
    from urllib.request import urlopen

    from phaselaw.errors import RunError

    try:
        if _is_url(source):
            with urlopen(source, timeout=10) as reply:
                raw = reply.read(LARGEST_PAGE)
        else:
            raw = Path(source).read_bytes()[:LARGEST_PAGE]
    except (OSError, URLError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise RunError(f"{source}: can't be read ({reason})") from None
    return bytes(raw).decode("utf-8", errors="replace")


def _note_faults(document: dict[str, Any]) -> None:
    faults = document.get("rows_not_read") or {"count": 0}
    if faults["count"]:
        shown = "; ".join(faults["first"])
        more = " ..." if faults["count"] > len(faults["first"]) else ""
        print(f"phaselaw: note: {faults['count']:,} rows not read: {shown}{more}", file=sys.stderr)


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console

    from phaselaw.report.terminal import print_section
    from phaselaw.report.traffic import section

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(width=400, highlight=False)
    print_section(section(document), console, titled=False)
