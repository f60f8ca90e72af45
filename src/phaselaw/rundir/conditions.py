"""What a run was made under, as its manifest tells it, and where two runs differ: the study, the host, the libraries.

Manifests of ours and of TR121 both tell it, in other words; what a manifest does not say is not compared, and of one
without a resolved study only what both say.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from phaselaw.machine.identity import HARDWARE
from phaselaw.records import Run
from phaselaw.study.model import KEPT_SERVERS

_OF_THE_STUDY = ("gen_tokens", "repetitions", "warmup_repetitions", "modes")
_NOT_COMPARED = ("run_name", "seed", "description", "replicates")
"""Keys of a study that change no condition: its name, the seed of its order of calls, how often it is measured."""

_OF_THE_HOST = {key: key for key in HARDWARE}
_LIBRARIES = {name: name for name in ("torch", "transformers", "llama_cpp", "xllamacpp")}
"""Libraries that do the work which is timed."""

_TR121_PLATFORM = {"os": "os", "machine": "machine", "processor": "cpu_model"}


def of_replicates(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know of how a run's replicates came about."""
    if names := manifest.get("kept_servers"):
        yield KEPT_SERVERS.format(", ".join(names))
    if resumed := manifest.get("resumed_replicates") if (manifest.get("replicates") or 1) > 1 else ():
        yield f"replicates resumed by a further process: {', '.join(map(str, resumed))}"


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Where two manifests differ in study, host or engine libraries, a line each; empty for runs of one kind."""
    lines: list[str] = []
    whole = all(manifest.get("study") or manifest.get("resolved") for manifest in (first, other))
    for of, facts in (("study", _study), ("host", host_of)):
        ours, theirs = facts(first), facts(other)
        if of == "study" and not whole:  # an older manifest has a few keys of its study alone
            ours, theirs = (
                {key: side[key] for key in side if key in ours and key in theirs} for side in (ours, theirs)
            )
        for key in dict.fromkeys([*ours, *theirs]) if ours and theirs else ():
            # The outermost entry of a list that holds the key and that only one side has.
            entries = (key[: at + 1] for at, letter in enumerate(key) if letter == "]")
            sides = (ours, theirs)
            entry = next((e for e in entries if not all(any(k.startswith(e) for k in side) for side in sides)), None)
            if entry is not None:
                lines.append(f"{of} {entry}: only in the {'first' if key in ours else 'other'}")
            elif ours.get(key) != theirs.get(key):
                one, two = ("none" if side.get(key) is None else str(side[key])[:80] for side in (ours, theirs))
                lines.append(f"{of} {key}: {one} and {two}")
    return list(dict.fromkeys(lines))


def _study(manifest: Mapping[str, Any]) -> dict[str, Any]:
    study = _mapping(manifest.get("study") or manifest.get("resolved"))
    keys = {**study, **{key: manifest[key] for key in _OF_THE_STUDY if key in manifest}}
    return dict(_flat({key: value for key, value in keys.items() if key not in _NOT_COMPARED}))


def host_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Machine and libraries, flat, by the names that phaselaw gives them."""
    host, torch, platform, nvml = (_mapping(manifest.get(key)) for key in ("host", "torch", "platform", "nvml"))
    libraries = _mapping(host.get("libraries")) or torch
    parts = ((host, _OF_THE_HOST), (libraries, _LIBRARIES), (platform, _TR121_PLATFORM), (nvml, {"name": "gpus"}))
    return dict(_flat({ours: part[key] for part, names in parts for key, ours in names.items() if key in part}))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves with their dotted paths; an entry of a list goes by its name where it has one."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            named = inner.get("name") if isinstance(inner, Mapping) else None
            yield from _flat(inner, f"{path}[{index if named is None else named}]")
    else:
        yield path, value


def other_latencies(a: Run, b: Run) -> dict[str, str]:
    """By name, backends whose decode times mean different things on the two sides, with what to say of them.

    Served rows with ``kv_decode_ms_equiv`` have decodes scaled to the tokens asked for in ``latency_ms``, those without
    as long as they ran.
    """
    decodes = (run.rows.filter(pl.col("mode") == "kv_decode", pl.col("backend_kind") == "ollama") for run in (a, b))
    scaled = pl.col("kv_decode_ms_equiv").is_not_null().any()
    first, other = (dict(rows.group_by("backend").agg(scaled).iter_rows()) for rows in decodes)
    what = "latency_ms is scaled to the tokens asked on one side (with kv_decode_ms_equiv), as it ran on the other; "
    what += "its decode and end-to-end rows are not compared"
    return {name: f"{name}: {what}" for name in first.keys() & other.keys() if first[name] != other[name]}


def prompt_differences(a: Run, b: Run) -> list[str]:
    """Scenarios of one name whose prompts differ in tokens, a line each: where no study says what was asked."""
    names = ["backend", "model", "scenario", "batch_size"]
    prefills = (run.rows.filter(pl.col("mode") == "prefill", pl.col("tokens_total").is_finite()) for run in (a, b))
    median = pl.col("tokens_total").median()
    first, other = (rows.group_by(names, maintain_order=True).agg(median) for rows in prefills)
    both = first.join(other, on=names, suffix="_b", maintain_order="left")
    return [
        f"prompt of {row['scenario']} for {row['model']} on {row['backend']}: {row['tokens_total']:g} and "
        f"{row['tokens_total_b']:g} tokens"
        for row in both.filter(pl.col("tokens_total") != pl.col("tokens_total_b")).iter_rows(named=True)
    ]
