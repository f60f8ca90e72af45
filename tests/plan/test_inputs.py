"""What a person gives to a plan: files of one's own and typed lists, and one line that says what is wrong in them."""

import math
from pathlib import Path

import numpy as np
import pytest

from phaselaw.errors import UsageError
from phaselaw.plan import positive
from phaselaw.plan.inputs import TR121_TIERS, money, read_mixes, read_success_rates, read_tiers, read_volumes
from phaselaw.plan.prices import read_offers
from phaselaw.records import Mix


def test_own_mixes_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mixes.csv"
    path.write_text("name,prompt_tokens,output_tokens,share\nask,300,80,0.9\nwrite,50,900,\n")
    assert read_mixes(path) == (
        Mix(name="ask", prompt_tokens=300, output_tokens=80, share=0.9),
        Mix(name="write", prompt_tokens=50, output_tokens=900, share=1.0),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,prompt_tokens\na,1\n", ":1: column.s. missing: output_tokens"),
        ("name,prompt_tokens,output_tokens\na,1,many\n", ":2: output_tokens 'many'"),
        ("name,prompt_tokens,output_tokens\na,-1,5\n", ":2: prompt_tokens '-1'"),
        ("name,prompt_tokens,output_tokens\na,0,0\n", ":2: a kind of request has tokens"),
        ("name,prompt_tokens,output_tokens\n", "no kinds of request"),
        ("name,prompt_tokens,output_tokens\na,1,1\na,2,2\n", "two kinds of request have one name"),
    ],
)
def test_a_faulty_file_is_one_line_that_says_where(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mixes.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_mixes(path)


@pytest.mark.parametrize("end", ["", '"'], ids=["to the end", "to another quote"])
def test_an_open_quote_swallows_no_rows_of_a_table(end: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f'gpu type,on-demand\nL4,1\n"A100,3\nH100,4\nB200{end},5\n')
    with pytest.raises(UsageError, match=r"list\.csv:3: an open quote, or a cell of many lines"):
        read_offers(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv: can't be read"):
        read_mixes(tmp_path / "none.csv")


def test_success_rates_are_read_with_what_they_were_counted_on(tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("model,success_rate,n\na,0.7,200\nb,0.9,\n")
    rates = read_success_rates(path, {"a", "b"})
    assert rates["b"].tolist() == [0.9]
    low, high = np.quantile(rates["a"][1:], [0.025, 0.975])
    assert (low, high) == (pytest.approx(0.634, abs=0.002), pytest.approx(0.760, abs=0.002))  # Jeffreys, 140 of 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,success_rate\na,1.2\n", ":2: success_rate 1.2"),
        ("model,success_rate\na,-0.1\n", ":2: success_rate '-0.1'"),
        ("model,success_rate\nz,0.5\n", ":2: model 'z' is not in this run"),
        ("model,success_rate\na,0.5\na,0.6\n", ":3: model 'a' is there twice"),
        ("model\na\n", ":1: column.s. missing: success_rate"),
    ],
)
def test_faulty_rates_are_one_line_that_says_where(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_success_rates(path, {"a"})


def test_the_default_tiers_are_tr121s_and_its_predecessors() -> None:
    assert TR121_TIERS == {"on-demand": 1.006, "spot": 0.302, "reserved 1 y": 0.704, "reserved 3 y": 0.503}


def test_tiers_and_volumes_are_typed() -> None:
    assert read_tiers("spot=0.3, big = 4") == {"spot": 0.3, "big": 4.0}
    assert read_tiers("2.5") == {"2.5": 2.5}
    with pytest.raises(UsageError, match="one is there twice"):
        read_tiers("a=1,a=9")
    assert read_volumes("1e8,2B") == (1e8, 2e9) and read_volumes("1,000,000") == (1e6,)


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [("1.006", 1.006, None), ("$1,024.50", 1024.5, "USD"), ("0.9 EUR", 0.9, "EUR"), ("€20k", 2e4, "EUR")],
)
def test_money_keeps_its_currency(text: str, amount: float, currency: str | None) -> None:
    assert money(text) == (amount, currency)


@pytest.mark.parametrize("text", ["spot=cheap", "spot=", "a=0", "a=-1", "a=nan", "a=1e300"])
def test_a_tier_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--rates"):
        read_tiers(text)


@pytest.mark.parametrize("text", ["lots", "", "0", "1e9,-1", "1e300"])
def test_a_volume_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--volumes"):
        read_volumes(text)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, 1e300])
def test_an_amount_that_is_no_positive_number_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match="--tokens-per-month"):
        positive("--tokens-per-month", value)
