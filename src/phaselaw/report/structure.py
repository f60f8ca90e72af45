"""Structure: which property of a model explains its latency, and how much of it is overhead (TR121 section 5)."""

from __future__ import annotations

from phaselaw.report.columns import count, digits, fixed, interval, number, percent, word
from phaselaw.report.document import Paragraph, Section, Table
from phaselaw.report.subject import Subject


def predictors(subject: Subject) -> Section:
    """Parameters, depth, width and bytes compared by how well each predicts a model left out."""
    rows = subject.rows("structure_predictors")
    if not rows:
        note = subject.analysis.notes.get("structure_predictors", "no model's layers are known")
        return Section(title="Which property explains latency", blocks=(Paragraph(f"Not computed: {note}."),))
    marked = tuple(row | {"least": "least error" if row["best"] else ""} for row in rows)
    columns = (
        word("backend", "law"),
        word("phase", "phase"),
        word("predicted from", "predictor"),
        number("models", "n_models", "measured", count),
        number("typical error", "loo_typical_factor", "derived", lambda value: f"{digits(value)} x"),
        number("R2", "r2", "derived", fixed),
        number("rank correlation", "spearman_rho", "derived", fixed),
        number("p", "spearman_p", "derived", fixed),
        word("", "least"),
    )
    planes = (
        word("backend", "law"),
        word("phase", "phase"),
        number("models", "n_models", "measured", count),
        number("params exponent", "beta_log_params", "derived", fixed),
        interval("interval", "beta_t_ci_low", "beta_t_ci_high"),
        word("verdict", "beta_verdict"),
        number("layers exponent", "gamma_log_layers", "derived", fixed),
        interval("interval", "gamma_t_ci_low", "gamma_t_ci_high"),
        word("verdict", "gamma_verdict"),
        number("R2", "r2", "derived", fixed),
    )
    blocks = (
        Paragraph(
            "Each model is left out in turn and predicted from the others. The typical error is a factor: at 1.5 x a "
            "prediction is usually off by half. 'mean' predicts the others' geometric mean, whatever the model: a "
            "property that does no better explains nothing."
        ),
        Table(caption="Error in predicting a model that was left out.", columns=columns, rows=marked),
        Table(
            caption="Parameters and layers together: log latency = alpha + beta log params + gamma log layers.",
            columns=planes,
            rows=subject.rows("hf_multivariate_fits"),
        ),
    )
    return Section(title="Which property explains latency", blocks=blocks)


def overhead(subject: Subject) -> Section:
    """The part of latency that does not shrink with the model."""
    columns = (
        word("backend", "law"),
        word("phase", "phase"),
        word("fit", "fit"),
        number("overhead a (ms)", "relative_a_ms", "derived"),
        interval("interval", "relative_a_ci_low", "relative_a_ci_high", digits),
        number("exponent s", "relative_s", "derived", fixed),
        interval("interval", "relative_s_ci_low", "relative_s_ci_high"),
        number("share at the median model", "relative_share_at_median", "derived", percent),
        interval("interval", "relative_share_at_median_ci_low", "relative_share_at_median_ci_high", percent),
        number("R2, TR121's fit", "r2", "derived", fixed),
    )
    # In a + b P the exponent is 1 by definition: it has no interval.
    rows = tuple(
        row if row["s"] is not None else row | {"relative_s_ci_low": None}
        for row in subject.rows("overhead_compute_fits")
    )
    blocks = (
        Paragraph(
            "latency = a + b P^s, fitted in relative error. With few models the split is often not determined: then "
            "the interval of the share reaches from 0 to 100 %, and no conclusion should rest on it. TR121's least "
            "squares in milliseconds stand in analysis/overhead_compute_fits.csv."
        ),
        Table(caption="Overhead against compute.", columns=columns, rows=rows),
    )
    return Section(title="Overhead and compute", blocks=blocks)
