"""The same weights on several engines: how far the engine, and not the model, makes the latency."""

from __future__ import annotations

from phaselaw.report.columns import count, digits, fixed, interval, number, word
from phaselaw.report.document import Paragraph, Section, Table
from phaselaw.report.subject import Subject
from phaselaw.tables import Row

_EXPONENT, _CONSTANT = "exponent", "constant only"


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
    return Section(
        title="The same weights on several engines",
        blocks=(said, _sentences(laws), _laws(laws), verdicts, _ratios(ratios)),
    )


def _sentences(laws: tuple[Row, ...]) -> Paragraph:
    """The end-to-end finding of each engine, in words."""
    told = [_sentence(row) for row in laws if row["mode"] == "e2e_kv"]
    return Paragraph(" ".join(told) or "No phase was measured end to end on two engines.")


def _sentence(row: Row) -> str:
    who = f"{row['law']} against {row['reference']}, end to end"
    if row["slope_difference"] is None:
        return f"{who}: too few models in common ({row['n_models']}) to tell a law's change."
    slopes = (
        f"exponents {fixed(row['slope'])} and {fixed(row['slope_reference'])}, difference "
        f"{fixed(row['slope_difference'])} [{fixed(row['slope_difference_low'])}, "
        f"{fixed(row['slope_difference_high'])}] over {row['n_models']} models"
    )
    ratio = (
        f"ratio {fixed(row['ratio_at_mean'], 2)} [{fixed(row['ratio_at_mean_low'], 2)}, "
        f"{fixed(row['ratio_at_mean_high'], 2)}] at {digits(row['params_millions_mean'])} million parameters"
    )
    changes = {_EXPONENT: "the exponent changes", _CONSTANT: "only the constant is seen to change"}
    return f"{who}: {changes.get(row['changes'], 'no change is shown')} ({slopes}; {ratio})."


def _laws(laws: tuple[Row, ...]) -> Table:
    return Table(
        caption="What of the law changes with the engine, over the models that all engines ran.",
        columns=(
            word("backend", "law"),
            word("phase", "phase"),
            number("models", "n_models", "measured", count),
            number("exponent", "slope", "derived", fixed),
            number("reference's exponent", "slope_reference", "derived", fixed),
            number("difference", "slope_difference", "derived", fixed),
            interval("95 % CI", "slope_difference_low", "slope_difference_high"),
            number("difference of log10 intercepts", "log10_intercept_difference", "derived", fixed),
            interval("95 % CI", "log10_intercept_difference_low", "log10_intercept_difference_high"),
            number("ratio at the mean size", "ratio_at_mean", "derived", _two),
            interval("95 % CI", "ratio_at_mean_low", "ratio_at_mean_high", _two),
            word("what changes", "changes"),
        ),
        rows=laws,
    )


def _ratios(ratios: tuple[Row, ...]) -> Table:
    return Table(
        caption="Each model's latency over the reference's, geometric mean over scenarios.",
        columns=(
            word("backend", "law"),
            word("model", "model"),
            word("weights", "weights"),
            word("phase", "phase"),
            number("reference (ms)", "latency_reference_ms", "measured"),
            number("this engine (ms)", "latency_ms", "measured"),
            number("ratio", "ratio", "derived"),
            interval("95 % CI", "ratio_low", "ratio_high", digits),
            word("interval over", "interval_basis"),
            word("note", "note"),
        ),
        rows=ratios,
    )


def _two(value: float | None) -> str:
    return fixed(value, 2)
