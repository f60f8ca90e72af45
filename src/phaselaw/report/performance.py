"""Performance tables: each model's latency and rate by phase, and the decode's share."""

from __future__ import annotations

from phaselaw.report.columns import count, digits, doubted, interval, number, percent, word
from phaselaw.report.document import Axis, DotPlot, Figure, Paragraph, Point, Section, Table
from phaselaw.report.subject import Subject
from phaselaw.tables import SUSPECT


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
        if mode == "kv_decode" and row["tokens_per_s_geomean"]:
            line["step_ms"] = 1000 * row["batch_size"] / row["tokens_per_s_geomean"]
        if row.get(SUSPECT):
            known = str(line.get(SUSPECT) or "").split(", ")
            line[SUSPECT] = ", ".join(dict.fromkeys([*filter(None, known), *str(row[SUSPECT]).split(", ")]))
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
        number("ms a token", "step_ms", "derived"),
        number("end to end (ms)", "e2e_kv_ms", "measured"),
        number("end to end tok/s", "e2e_kv_rate", "derived"),
        interval("its interval", "low", "high", digits),
        *doubted(merged.values()),
    )
    table = Table(
        caption="Medians over repetitions, geometric means over scenarios. tok/s counts the tokens of the phase: "
        "prompt, generated, or both.",
        columns=columns,
        rows=tuple(merged.values()),
    )
    return Section(title="Performance by model", blocks=(table,))


def decode_share(subject: Subject) -> Section | None:
    """Which share of the whole the decode is (TR121 section 6); ``None`` without models that have both phases."""
    rows = subject.rows("decode_fraction_summary")
    if not rows:
        return None
    columns = (
        word("backend", "law"),
        number("tokens", "gen_tokens_target", "assumed", count),
        number("models", "n_models", "measured", count),
        number("median", "decode_fraction_median", "derived", percent),
        interval("quartiles over models", "decode_fraction_p25", "decode_fraction_p75", percent),
        *doubted(rows),
    )
    blocks = (
        Paragraph(
            "Where decode is nearly all of end to end, the fleet is sized by decode tokens/s, and a faster prefill "
            "shows only in the time to the first token."
        ),
        Table(caption="Decode time / end-to-end time, over models.", columns=columns, rows=rows),
        _share_of_each_model(subject),
    )
    return Section(title="Decode's share of the whole", blocks=blocks)


def _share_of_each_model(subject: Subject) -> Figure:
    groups: dict[str, list[Point]] = {}
    for row in subject.ordered("decode_fraction_by_model"):
        groups.setdefault(str(row["law"]), []).append(Point(label=str(row["model"]), x=row["decode_fraction"], y=0.0))
    plot = DotPlot(
        name="decode-share",
        alt="Decode's share of end-to-end latency of each model, a row for each backend",
        axis=Axis(title="decode / end to end", percent=True),
        reference=None,
        rows=tuple((law, tuple(points)) for law, points in groups.items()),
    )
    return Figure(plot=plot, caption="Each model's decode as a share of its end-to-end latency.")
