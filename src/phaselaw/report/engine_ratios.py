"""The same weights on several engines: how far the engine, and not the model, makes the latency."""

from __future__ import annotations

from phaselaw.laws.engine_ratios import CONSTANT, ENGINE_LAWS, ENGINE_RATIOS, EXPONENT
from phaselaw.report.document import Paragraph, Section, display
from phaselaw.report.subject import Subject
from phaselaw.tables import Row, bracket, digits, fixed, two_places


def compared(subject: Subject) -> Section | None:
    """Ratios of each engine to the reference and what of the law changes; ``None`` where no two share a model."""
    ratios, laws = subject.rows("engine_ratios"), subject.rows("engine_laws")
    if not ratios:
        return None
    reference = ratios[0]["reference"]
    said = Paragraph(
        f"Latency over that of {reference} for the same weights, prompt and budget; below 1 is faster. Models are "
        "paired by the identity that the study states, and the engines run with the settings that it states, else "
        "their own defaults, so that a ratio holds for these and not for an engine as such. A phase is told by the "
        "clock that its engine has: transformers inside this process, llama.cpp by its own timings, Ollama's decode "
        "by the client's clock and its prefill by the server's, and OpenAI's protocol by the client's clock alone."
    )
    verdicts = Paragraph(
        "A law's exponent changes where the interval of the difference of slopes leaves out 0: the engine's gain then "
        "depends on size. Only its constant changes where it holds 0 and the ratio at the mean size leaves out 1. The "
        "fit is paired over the models that all engines ran, so that what a model does to both cancels. Each interval "
        "stands for itself: of twenty, one is expected to miss."
    )
    findings = " ".join(_sentence(row) for row in laws if row["mode"] == "e2e_kv")
    found = Paragraph(findings or "No phase was measured end to end on two engines.")
    blocks = (said, found, display(ENGINE_LAWS, laws), verdicts, display(ENGINE_RATIOS, ratios))
    return Section(title="The same weights on several engines", blocks=blocks)


def _sentence(row: Row) -> str:
    who = f"{row['law']} against {row['reference']}, end to end"
    if row["slope_difference"] is None:
        return f"{who}: too few models in common ({row['n_models']}) to tell a law's change."
    slopes = (
        f"exponents {fixed(row['slope'])} and {fixed(row['slope_reference'])}, difference "
        f"{fixed(row['slope_difference'])} {bracket(row['slope_difference_low'], row['slope_difference_high'])} over "
        f"{row['n_models']} models"
    )
    ends = bracket(row["ratio_at_mean_low"], row["ratio_at_mean_high"], two_places)
    size = f"{digits(row['params_millions_mean'])} million parameters"
    ratio = f"ratio {two_places(row['ratio_at_mean'])} {ends} at {size}"
    changes = {EXPONENT: "the exponent changes", CONSTANT: "only the constant is seen to change"}
    return f"{who}: {changes.get(row['changes'], 'no change is shown')} ({slopes}; {ratio})."
