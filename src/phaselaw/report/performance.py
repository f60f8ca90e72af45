"""Performance tables: each model's latency and rate by phase, and the decode's share."""

from __future__ import annotations

from phaselaw.report.columns import count, digits, interval, number, percent, word
from phaselaw.report.document import Section, Table
from phaselaw.report.subject import Subject


def by_model(subject: Subject) -> Section:
    """One row a model and backend, the phases side by side (TR121 3.5)."""
    merged: dict[tuple[str, str], dict[str, object]] = {}
    for row in subject.rows("summary_by_model_backend_mode_agg"):
        mode = row["mode"]
        line = merged.setdefault(
            (str(row["law"]), str(row["model"])),
            {"law": row["law"], "model": row["model"], "params": row["params_millions_effective"]},
        )
        line[f"{mode}_ms"], line[f"{mode}_rate"] = row["latency_geomean_ms"], row["tokens_per_s_geomean"]
    for rate in subject.rows("throughput_intervals", mode="e2e_kv"):
        line = merged.get((str(rate["law"]), str(rate["model"])), {})
        line |= {"low": rate["tokens_per_s_low"], "high": rate["tokens_per_s_high"]}
    columns = (
        word("backend", "law"),
        word("model", "model"),
        number("params (M)", "params", "measured"),
        number("prefill (ms)", "prefill_ms", "measured"),
        number("prefill tok/s", "prefill_rate", "derived"),
        number("decode (ms)", "kv_decode_ms", "measured"),
        number("decode tok/s", "kv_decode_rate", "derived"),
        number("end to end (ms)", "e2e_kv_ms", "measured"),
        number("end to end tok/s", "e2e_kv_rate", "derived"),
        interval("its interval", "low", "high", digits),
    )
    table = Table(
        caption="Medians over repetitions, geometric means over scenarios. tok/s counts the tokens of the phase: "
        "prompt, generated, or both.",
        columns=columns,
        rows=tuple(merged.values()),
    )
    return Section(title="Performance by model", blocks=(table,))


def decode_share(subject: Subject) -> Section:
    """Which share of the whole the decode is (TR121 section 6)."""
    columns = (
        word("backend", "law"),
        number("models", "n_models", "measured", count),
        number("median", "decode_fraction_median", "derived", percent),
        interval("quartiles over models", "decode_fraction_p25", "decode_fraction_p75", percent),
    )
    table = Table(
        caption="Decode time / end-to-end time.", columns=columns, rows=subject.rows("decode_fraction_summary")
    )
    return Section(title="Decode's share of the whole", blocks=(table,))
