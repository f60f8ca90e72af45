"""Kinds of request: arithmetic on tokens, and a file of one's own."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.errors import UsageError
from phaselaw.plan.capacity import SECONDS_PER_MONTH, usd_per_million_tokens
from phaselaw.plan.estimate import exact
from phaselaw.plan.mixes import (
    TR121_MIXES,
    mean_tokens,
    read_mixes,
    requests_per_s,
    tokens_per_month,
    usd_per_thousand_requests,
)
from phaselaw.records import Mix


@given(rate=st.floats(1, 1e5), tokens=st.floats(1, 1e5), usd=st.floats(0.01, 100))
def test_a_worker_that_only_serves_requests_earns_its_hour(rate: float, tokens: float, usd: float) -> None:
    price = usd_per_thousand_requests(usd_per_million_tokens(exact(rate), usd), tokens)
    assert price[0] / 1000 * requests_per_s(exact(rate), tokens)[0] * 3600 == pytest.approx(usd)


def test_tr121s_mixes_hold_the_tokens_that_it_prints() -> None:
    assert [mix.tokens for mix in TR121_MIXES] == [384, 544, 1536, 2304]


def test_the_mean_goes_by_shares() -> None:
    mixes = [
        Mix(name="a", prompt_tokens=90, output_tokens=10, share=3),
        Mix(name="b", prompt_tokens=0, output_tokens=500),
    ]
    assert mean_tokens(mixes) == 200
    assert tokens_per_month(2.0, mean_tokens(mixes)) == 400 * SECONDS_PER_MONTH


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


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv: can't be read"):
        read_mixes(tmp_path / "none.csv")
