"""Values of options, as people write them."""

import argparse
import math

import pytest

from phaselaw.commands.options import add_cold_start_slo, add_count, duration, print_lines, size
from phaselaw.errors import UsageError
from phaselaw.files import amount


@pytest.mark.parametrize(
    ("text", "value"),
    [("1B", 1e9), ("20k", 2e4), ("1,000,000", 1e6), ("1,500.5", 1500.5), ("70%", 0.7), ("1e9", 1e9), ("8 M", 8e6),
     ("-5", -5.0), ("2T", 2e12), ("0.25", 0.25)],
)  # fmt: skip
def test_an_amount(text: str, value: float) -> None:
    assert amount(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "B", "1,00", "1,2,3", "1.2.3", "nan", "inf", "1KB", "1e", "--"])
def test_what_is_no_amount(text: str) -> None:
    assert math.isnan(amount(text))


def test_a_time_in_milliseconds() -> None:
    assert duration("--slo", "500ms") == 0.5


@pytest.mark.parametrize("text", ["0.5m", "5 m", "90k", "50%", "1b", "s", ""])
def test_a_time_has_no_magnitude_and_minutes_are_min(text: str) -> None:
    with pytest.raises(UsageError, match=r"--slo .*give a time, as in 500ms, 90s, 5min \(not 5m\) or 1h"):
        duration("--slo", text)


@pytest.mark.parametrize("text", ["1k", "50%"])
def test_milliseconds_have_no_magnitude_either(text: str) -> None:
    parser = argparse.ArgumentParser()
    add_cold_start_slo(parser)
    assert parser.parse_args(["--cold-start-slo", "1e2"]).cold_start_slo == 100
    with pytest.raises(UsageError, match="milliseconds"):
        parser.parse_args(["--cold-start-slo", text])


def test_a_count_as_people_write_it() -> None:
    parser = argparse.ArgumentParser()
    add_count(parser, "--batch", "")
    assert parser.parse_args(["--batch", "20k"]).batch == 20_000
    for text in ("0", "1.5", "x", "1e999", "1e18"):
        with pytest.raises(UsageError, match=r"--batch .*: give a whole number, 1 or more"):
            parser.parse_args(["--batch", text])


@pytest.mark.parametrize(("text", "size_bytes"), [("16GB", 16e9), ("16 gib", 2**34), ("1,000MB", 1e9), ("80G", 80e9)])
def test_a_size(text: str, size_bytes: float) -> None:
    assert size(text) == size_bytes


def test_what_is_too_long_for_a_terminal_goes_on_below_its_text(monkeypatch, capsys) -> None:
    line = "models     models/a, models/b, models/c"
    print_lines([line])
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_lines([line, "", "  weights 0.1 GB, cache 0.009 GB"])
    on_a_terminal = "models     models/a, models/b,\n           models/c\n\n  weights 0.1 GB, cache 0.009\n    GB\n"
    assert capsys.readouterr().out == f"{line}\n{on_a_terminal}"
