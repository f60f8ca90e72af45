"""Structure: which property of a model explains its latency, and how much is overhead (TR121 section 5, appendix A)."""

from __future__ import annotations

from phaselaw.report.columns import count, digits, doubted, fixed, interval, number, percent, word
from phaselaw.report.document import Paragraph, Section, Table
from phaselaw.report.subject import Subject


def architecture(subject: Subject) -> Section | None:
    """Each model's layers and width, and how latency goes with them; ``None`` where no layers are known (TR121 A)."""
    models = subject.rows("hf_model_architecture")
    if not models:
        return None
    ordered = tuple(sorted(models, key=lambda row: float(row["params_millions_effective"] or 0)))
    table = Table(
        caption="Each model's architecture.",
        columns=(
            word("model", "model"),
            number("params (M)", "params_millions_effective", "measured"),
            number("layers", "n_layer", "measured", count),
            number("width", "n_embd", "measured", count),
            number("heads", "n_head", "measured", count),
            number("inner width", "n_inner", "measured", count),
            number("vocabulary", "vocab_size", "measured", count),
            word("from", "source"),
        ),
        rows=ordered,
    )
    correlated = subject.ordered("hf_architecture_correlations")
    rank = (("params", "loglog_params"), ("layers", "n_layer_vs_log_latency"), ("width", "n_embd_vs_log_latency"))
    correlations = Table(
        caption="Rank correlation (Spearman's rho) of latency with each property, and its p-value.",
        columns=(
            word("backend", "law"),
            word("phase", "phase"),
            number("models", "n_models", "measured", count),
            *(
                column
                for name, key in rank
                for column in (
                    number(name, f"spearman_rho_{key}", "derived", fixed),
                    number(f"p, {name}", f"spearman_p_{key}", "derived", p_value),
                )
            ),
            *doubted(correlated),
        ),
        rows=correlated,
    )
    said = Paragraph(
        "Parameter counts hide shape: a deep, narrow model takes more sequential steps a token than a shallow, wide "
        "one of the same size. With so few models only a rank correlation near 1 says much, and of many p-values one "
        "in twenty falls below 0.05 by chance."
    )
    return Section(title="Model structure", blocks=(said, table, correlations))


def p_value(value: float | None) -> str:
    """A p-value; what is smaller than a thousandth says so."""
    return "< 0.001" if value is not None and value < 0.001 else fixed(value)


def predictors(subject: Subject) -> Section:
    """Parameters, depth, width and bytes compared by how well each predicts a model left out."""
    rows = subject.ordered("structure_predictors")
    if not rows:
        note = subject.analysis.notes.get("structure_predictors", "no model's layers are known")
        return Section(title="Which property explains latency", blocks=(Paragraph(f"Not computed: {note}."),))
    marked = tuple(row | {"least": "least error" if row["best"] else "", "caution": row["warning"]} for row in rows)
    columns = (
        word("backend", "law"),
        word("phase", "phase"),
        word("predicted from", "predictor"),
        number("models", "n_models", "measured", count),
        number("typical error", "loo_typical_factor", "derived", lambda value: f"{digits(value)} x"),
        number("R2", "r2", "derived", fixed),
        number("rank correlation", "spearman_rho", "derived", fixed),
        number("p", "spearman_p", "derived", p_value),
        word("best", "least"),
        *doubted(rows),
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
        word("intervals hold", "interval_holds"),
        *doubted(subject.ordered("hf_multivariate_fits")),
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
            rows=subject.ordered("hf_multivariate_fits"),
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
        *doubted(subject.ordered("overhead_compute_fits")),
    )
    # In a + b P the exponent is 1 by definition: it has no interval.
    rows = tuple(
        row if row["s"] is not None else row | {"relative_s_ci_low": None}
        for row in subject.ordered("overhead_compute_fits")
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
