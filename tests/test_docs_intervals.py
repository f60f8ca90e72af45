"""docs/intervals.md: its commands run in order, and the columns and words that it names are those of the tables."""

import doctest
import re
import shlex
from pathlib import Path

import polars as pl
import pytest

from phaselaw.cli import main
from phaselaw.laws.rates import BASIS, NOT_MEASURED

PAGE = (Path(__file__).parent.parent / "docs" / "intervals.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.usefixtures("each_run_is_read_once")


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            assert main(shlex.split(line)[1:]) == 0, line
    fits = pl.read_csv(tmp_path / "runs" / "pooled" / "scaling_fits.csv", infer_schema_length=None)
    assert fits["between_run_noise"].unique().to_list() == ["measured over 3 runs"]
    for column in re.findall(r"`(slope_\w+|between_run_noise)`", PAGE):
        assert column in fits.columns
    alone = pl.read_csv(tmp_path / "runs" / "monday" / "analysis" / "scaling_fits.csv", infer_schema_length=None)
    assert alone["between_run_noise"].unique().to_list() == ["measured over 3 replicates"]
    assert alone["slope_interval_holds"].unique().to_list() == ["models, calls and 3 replicates"]


def test_the_example_of_the_two_intervals_comes_out_as_printed() -> None:
    text = re.sub(r"^```.*$", "", PAGE, flags=re.MULTILINE)  # a fence's end would be taken for output
    found = doctest.DocTestRunner().run(doctest.DocTestParser().get_doctest(text, {}, "intervals.md", None, 0))
    assert found.attempted > 5 and found.failed == 0


def test_every_basis_of_a_rate_is_explained() -> None:
    for basis in (*BASIS.values(), NOT_MEASURED):
        assert f"| {basis} |" in PAGE
