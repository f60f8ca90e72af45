"""Price lists: an accelerator's hour out of machines, and what to doubt."""

import datetime as dt
from pathlib import Path

import pytest

from phaselaw.errors import UsageError
from phaselaw.plan.prices import Choice, choose, is_named, read_date, read_offers

LIST = """Cloud,GPU Type,GPU Arch,GPUs,GPU RAM,vCPUs,RAM,On-demand,Per-GPU,Spot,Name
One,A100 (80 GB),Ampere,8,640,96,1152,40.00,5.00,,big
Two,A100 (80 GB),Ampere,1,80,24,220,3.67,3.67,1.47,solo
Three,A100 (40 GB),Ampere,2,80,24,170,7.34,3.67,2.20,pair
Four,A10 (24 GB),Ampere,1,24,24,160,0.35,0.35,,
Five,3080Ti (12 GB),Ampere,4,36,48,224,,3.14028,,huge
Six,A100 (80 GB),Ampere,4,320,8,8,4.00,4.00,,mistaken
Seven,Nvidia L4,Lovelace,1,24GB,0,0,$0.75,$0.75,,
"""

TODAY = dt.date(2025, 7, 1)


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.csv"
    path.write_text(LIST)
    return path


def pick(path: Path, accelerator: str, **settings: object) -> Choice:
    asked = {"provider": None, "accelerators": 1, "today": TODAY} | settings
    kind = str(asked.pop("kind", "on-demand"))
    dated = asked.pop("dated", None)
    offers, _ = read_offers(path, kind=kind, dated=dated)
    return choose(offers, accelerator, **asked)


def test_an_accelerators_hour_is_its_share_of_the_machine(prices: Path) -> None:
    choice = pick(prices, "A100 80GB", provider="One")
    assert choice.usd_per_hour == 5.0 and choice.offer.doubt is None


def test_the_median_price_without_a_doubt_is_taken_or_the_providers_lowest(tmp_path: Path, prices: Path) -> None:
    path = tmp_path / "h100.csv"
    path.write_text("provider,accelerator,per-hour\n" + "".join(f"p{usd},H100,{usd}\n" for usd in (2, 3, 4, 0.5, 5)))
    assert pick(path, "H100").usd_per_hour == 3 and pick(path, "H100", provider="p5").usd_per_hour == 5
    assert pick(path, "H100", provider="p0.5").offer.doubt == "the median of its accelerator is 3.00"
    choice = pick(prices, "A100 80GB")
    assert (choice.offer.provider, choice.usd_per_hour) == ("Two", 3.67)
    assert (choice.offers, choice.lowest, choice.highest) == (3, 1.0, 5.0)
    doubt = pick(prices, "A100", provider="six").offer.doubt
    assert doubt is not None and "4" in doubt


def listed(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["provider,accelerator,per-hour,currency", *rows]))
    return path


def test_of_two_prices_far_apart_both_are_in_doubt(tmp_path: Path) -> None:
    choice = pick(listed(tmp_path / "two.csv", "a,H100,3,", "b,H100,300,"), "H100")
    assert (choice.usd_per_hour, choice.taken) == (3.0, "lower median")
    assert choice.offer.doubt == "the median of its accelerator is 3.00 to 300.00"


def test_a_price_in_an_unknown_currency_is_not_taken_for_dollars(tmp_path: Path) -> None:
    path = listed(tmp_path / "won.csv", "a,H100,3000,KRW", "b,H100,3,USD")
    offers, unread = read_offers(path)
    assert [offer.provider for offer in offers] == ["b"] and unread == [f"{path}:2"]


def test_doubts_are_worked_out_within_a_currency_and_a_date_to_come_is_told(tmp_path: Path) -> None:
    path = listed(tmp_path / "yen.csv", "a,H100,450,JPY", "b,H100,3,USD", "c,H100,3.1,USD")
    assert pick(path, "H100", provider="a").offer.doubt is None
    tomorrow = pick(path, "H100", provider="b", dated=TODAY + dt.timedelta(days=1))
    assert any("a day that is to come" in note for note in tomorrow.notes())


def test_a_name_is_matched_by_words_not_by_letters(prices: Path) -> None:
    assert pick(prices, "A10").offer.provider == "Four"
    assert set(pick(prices, "a100").kinds) == {"A100 (40 GB)", "A100 (80 GB)"}
    assert pick(prices, "A100 (40 GB)").offer.provider == "Three"
    assert pick(prices, "L4 24GB").usd_per_hour == 0.75


def test_a_price_per_accelerator_with_no_machine_to_check_it_is_in_doubt(prices: Path) -> None:
    doubt = pick(prices, "3080Ti").offer.doubt
    assert doubt is not None and "no price of the whole machine" in doubt


def test_a_worker_of_several_accelerators_pays_for_each(prices: Path) -> None:
    assert pick(prices, "A10", accelerators=4).usd_per_hour == pytest.approx(1.40)


def test_spot_prices_are_the_machines_too(prices: Path) -> None:
    choice = pick(prices, "A100", kind="spot")
    assert choice.usd_per_hour == pytest.approx(1.10) and choice.offer.provider == "Three"


@pytest.mark.parametrize(("dated", "stale"), [(dt.date(2025, 4, 2), False), (dt.date(2025, 4, 1), True), (None, None)])
def test_a_list_is_stale_after_ninety_days(prices: Path, dated: dt.date | None, stale: bool | None) -> None:
    assert pick(prices, "A10", dated=dated).stale is stale


def test_a_day_in_the_rows_is_the_lists(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("provider,accelerator,price per hour,date\nme,H100,2.5,2025-06-30\n")
    choice = pick(path, "H100")
    assert choice.age_days == 1 and choice.stale is False


def test_what_the_list_has_is_named_where_something_is_not_in_it(prices: Path) -> None:
    with pytest.raises(UsageError, match="--accelerator H100: not in the price list; it has: 3080Ti"):
        pick(prices, "H100")
    with pytest.raises(UsageError, match="--provider One: offers no L4; these do: Seven"):
        pick(prices, "L4", provider="One")
    with pytest.raises(UsageError, match="YYYY-MM-DD"):
        read_date("July", "--prices-date")


def test_a_file_that_is_no_price_list_says_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "no.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="no price list: it needs a column for the accelerator"):
        read_offers(path)


@pytest.mark.parametrize(
    "text",
    ["accelerator,per-hour\nH100,€2.50", "accelerator,per-hour (EUR)\nH100,2.5", "accelerator,per-hour\nH100,2.5 EUR",
     "accelerator,per-hour,currency\nH100,2.5,eur"],
)  # fmt: skip
def test_a_currency_is_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text)
    choice = pick(path, "H100")
    assert (choice.usd_per_hour, choice.offer.currency) == (2.5, "EUR")
    assert "€2.50 an accelerator's hour" in next(choice.notes())


def test_prices_in_two_currencies_are_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("provider,accelerator,per-hour\na,H100,$3\nb,H100,€2.5\n")
    with pytest.raises(UsageError, match="prices in EUR and USD; choose a --provider"):
        pick(path, "H100")
    assert pick(path, "H100", provider="b").offer.currency == "EUR"


def test_a_row_whose_price_is_not_understood_is_told(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("accelerator,per-hour\nH100,3\nH100,call us\nA100,\n")
    offers, unread = read_offers(path)
    assert len(offers) == 1 and unread == [f"{path}:3"]


@pytest.mark.parametrize(
    ("asked", "name", "same"),
    [("H100", "NVIDIA H100 80GB HBM3", True), ("A10", "NVIDIA A100-SXM4-40GB", False), ("3080Ti", "RTX 3080 Ti", True),
     ("RTX 3080 Ti", "3080Ti", False), ("3080 Ti", "3080Ti", True), ("A100 80GB", "NVIDIA A100-SXM4-80GB", True)],
)  # fmt: skip
def test_an_accelerator_goes_by_its_words(asked: str, name: str, same: bool) -> None:
    assert is_named(asked, name) is same


def test_the_real_lists_are_read(reference_data: Path) -> None:
    for name, least in (("cloud-gpus.csv", 150), ("serverless-gpus.csv", 50)):
        offers, unread = read_offers(reference_data / "prices" / name)
        assert len(offers) > least and not unread
        assert all(0.05 < offer.usd_per_hour < 15 for offer in offers)
    t4 = pick(reference_data / "prices" / "serverless-gpus.csv", "T4")
    assert (t4.offer.provider, t4.usd_per_hour, t4.lowest) == ("Covalent", 0.64, 0.4)
    # Machines of eight at AWS: the hour of one is an eighth of 40.97.
    assert pick(reference_data / "prices" / "cloud-gpus.csv", "A100 80GB", provider="aws").usd_per_hour == 40.97 / 8
