"""Laws drawn: a panel a backend, its phases in one; fewer of a run that has very many."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from phaselaw.report import scaling

X, Y = np.log10([1.0, 10.0, 100.0]), np.log10([10.0, 30.0, 100.0])


def law(**changes) -> dict:
    fit = stats.linregress(X, Y)
    residual = Y - fit.intercept - fit.slope * X
    squares = float(((X - X.mean()) ** 2).sum())
    return {
        "residual_sd_log10": float(np.sqrt((residual**2).sum())), "log10_params_mean": float(X.mean()),
        "log10_params_sum_of_squares": squares, "n_models": 3,
    } | changes  # fmt: skip


def test_the_band_is_the_interval_of_the_mean_that_regression_gives() -> None:
    at_the_mean = scaling.band(law(), np.array([1.0]), 0.95)
    assert at_the_mean is not None
    assert at_the_mean[0] == pytest.approx(stats.t.ppf(0.975, 1) * law()["residual_sd_log10"] / np.sqrt(3))
    away = scaling.band(law(), np.array([0.0]), 0.95)
    assert away is not None and away[0] > at_the_mean[0]


def test_two_models_have_a_line_and_no_band() -> None:
    assert scaling.band(law(n_models=2, residual_sd_log10=None), np.zeros(1), 0.95) is None


def test_the_phases_of_a_backend_share_a_panel_and_a_legend_says_their_exponents_in_words(hostile_run: Path) -> None:
    drawn = (hostile_run / "analysis" / "plots" / "scaling.svg").read_text()
    assert drawn.count('class="band') == 3
    assert all(f"{phase}: 10 x as big, " in drawn for phase in ("prefill", "decode", "end to end"))


def test_of_many_panels_the_first_are_drawn_and_the_rest_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "by_phase", lambda *about: about[1])
    picture = scaling.picture(SimpleNamespace(laws=lambda: [{"law": f"backend {at}"} for at in range(15)]))
    assert picture is not None and len(picture.panels) == 12
    assert picture.caption.endswith("3 more are in the tables alone.")
