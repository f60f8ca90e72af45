"""Summarise real traffic: rate, bursts, lengths, latencies; for phaselaw plan --traffic.

examples:
  phaselaw traffic requests.csv.gz --out profile.json            a log of any size, in little memory
  phaselaw traffic monday.csv tuesday.csv                        several logs as one; - is standard input
  phaselaw traffic log.csv --part 2.5:26.5                       only the day that begins 2.5 hours in
  phaselaw traffic log.jsonl --prompt-tokens-column usage.input --against runs/a
  phaselaw traffic http://127.0.0.1:8000/metrics --window 60      an engine's Prometheus page, read twice
  phaselaw traffic before.prom after.prom --window 3600           two pages saved an hour apart
  phaselaw plan runs/a --traffic profile.json                    plan with it

Logs are CSV, JSON or Parquet, plain, gzipped or zstd, with the time and the lengths of each request. Columns are known
by common names: Azure's, BurstGPT's, Mooncake's, Vidur's, LiteLLM's, Langfuse's, Helicone's, Bedrock's, OpenAI's,
Anthropic's, OpenTelemetry's, AIPerf's. What is not sure is said first or refused. More: docs/traffic.md.
"""

import argparse
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from phaselaw import api
from phaselaw.commands.console import note, screen
from phaselaw.commands.options import a_path, add_json, option, print_json
from phaselaw.errors import AnalysisError, RunError, UsageError, writing
from phaselaw.files import write_json
from phaselaw.plan import positive
from phaselaw.report.terminal import print_fitting
from phaselaw.report.traffic import section
from phaselaw.traffic.profile import traffic_profile
from phaselaw.traffic.prometheus import looks_like_a_page, parse, scrape_profile
from phaselaw.traffic.source import UNITS, Reading

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


def add_options(parser: argparse.ArgumentParser) -> None:
    option(parser, "sources", "FILE", "request logs (-: standard input), or one or two Prometheus pages", nargs="+")
    option(parser, "--out", "FILE", "write the profile here, as JSON", type=a_path)
    option(parser, "--model", "NAME", "only this model's requests")
    add_json(parser, "print the profile as JSON")
    columns = parser.add_argument_group("columns (default: known by common names)")
    for meaning, what in COLUMN_OPTIONS.items():
        option(columns, f"--{meaning.replace('_', '-')}-column", "NAME", what)
    units: dict[str, Any] = {"choices": tuple(UNITS)}
    option(columns, "--timestamp-unit", None, "of timestamps that are numbers (default: by size)", **units)
    text = "day-first, month-first, or a pattern such as '%%d.%%m.%%Y'"
    option(columns, "--timestamp-format", "FORMAT", text)
    option(columns, "--duration-unit", None, "of durations whose name has none (default: s)", **units)
    rows = parser.add_argument_group("rows")
    text = "only requests between so many hours after the first; either may be left out"
    option(rows, "--part", "FROM:TO", text, type=_part)
    text = "leave out rows that can't be read, however many; the profile and its plans say so"
    rows.add_argument("--allow-dropped", action="store_true", help=text)
    law = parser.add_argument_group("does production agree with the measured law?")
    option(law, "--against", "RUN", "compare its step times with logged latencies", type=a_path)
    option(law, "--against-model", "NAME", "which model of RUN (default: its only one)")
    option(law, "--against-backend", "NAME", "which backend of RUN (default: its only one)")
    page = parser.add_argument_group("Prometheus pages")
    text = "between two pages; with one URL: read it again after so long"
    option(page, "--window", "SECONDS", text, positive)


def run(args: argparse.Namespace) -> None:
    if args.out is not None and not args.out.resolve().parent.is_dir():
        raise RunError(f"{args.out}: its folder is not there")
    document = _of_pages(args) if _are_pages(args) else _of_log(args)
    if args.out is not None:
        with writing(args.out):
            write_json(args.out, document)
    if args.json:
        note(*document.get("doubts", ()))
        print_json(document)
    else:
        print_fitting(section(document), screen(), as_wide=True)
        if args.out is not None:
            print(f"profile: {args.out}")


def _are_pages(args: argparse.Namespace) -> bool:
    pages = [_is_url(each) or (Path(each).is_file() and looks_like_a_page(_read(each, 4096))) for each in args.sources]
    if any(pages) and (len(pages) > 2 or not all(pages)):
        raise UsageError("give request logs, or one or two Prometheus pages")
    return all(pages)


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _read(source: str, most: int = LARGEST_PAGE) -> str:
    """The text of a URL or a file, up to so many bytes of it."""
    try:
        with urlopen(source, timeout=10) if _is_url(source) else Path(source).open("rb") as content:
            return bytes(content.read(most)).decode("utf-8", errors="replace")
    except (OSError, URLError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise RunError(f"{source}: can't be read ({reason})") from None


def _of_log(args: argparse.Namespace) -> dict[str, Any]:
    if args.window is not None:
        raise UsageError("--window is about Prometheus pages; --part takes a part of a log")
    columns = {meaning: name for meaning in COLUMN_OPTIONS if (name := getattr(args, f"{meaning}_column"))}
    named = ("timestamp_unit", "timestamp_format", "duration_unit", "model", "allow_dropped")
    reading = Reading(columns=columns, part=args.part, **{name: getattr(args, name) for name in named})
    law = None
    if args.against is not None:
        against = api.load(args.against)
        law = api.reference_times(against, backend=args.against_backend, model=args.against_model, tell=note)
    profile = traffic_profile(args.sources, reading, law)
    if law and not ((profile["timings"] or {}).get("against") or {}).get("times_compared"):
        raise AnalysisError("--against: no warm request has a TTFT, so nothing is compared (--ttft-column names it)")
    return profile


def _part(text: str) -> tuple[float, float]:
    """Hours from the first request, of which either end may be open. Raises `UsageError`."""
    try:
        begin, end = text.split(":")
        part = float(begin or 0), float(end or "inf")
    except ValueError:
        part = 0.0, 0.0
    if not 0 <= part[0] < part[1]:
        raise UsageError(f"--part {text}: give hours from the log's first request, as in 2.5:26.5 or 2.5:")
    return part


def _of_pages(args: argparse.Namespace) -> dict[str, Any]:
    sources = list(args.sources)
    if args.against is not None:
        raise UsageError("--against needs a request log: a Prometheus page does not tell requests apart")
    if len(sources) == 1 and _is_url(sources[0]) and args.window is not None:
        sources = sources * 2
    if (len(sources) == 2) != (args.window is not None):
        raise UsageError("two pages go with --window: how many seconds lie between them")
    pages, began, live = [], time.monotonic(), all(map(_is_url, sources))
    for at, source in enumerate(sources):
        if at and live:
            time.sleep(max(0.0, began + args.window - time.monotonic()))
        pages.append(parse(_read(source), model=args.model))
    elapsed = time.monotonic() - began if live and len(sources) == 2 else args.window
    now = time.time() if _is_url(sources[-1]) else Path(sources[-1]).stat().st_mtime
    found = scrape_profile(pages[-1], earlier=pages[0] if len(pages) == 2 else None, seconds=elapsed, now=now)
    if found["span_s"] != args.window and not live:
        found["doubts"] = ["the page is taken to be as old as its file: a copy's time makes the rate wrong"]
    return found
