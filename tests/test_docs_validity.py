"""docs/validity.md names every check with the false-alarm rate that it states of itself."""

import re
from pathlib import Path

import false_alarms

TEXT = (Path(__file__).parent.parent / "docs" / "validity.md").read_text(encoding="utf-8")
TABLE = dict(re.findall(r"^\| ([a-z ]+) \| [^|]+ \| ([^|]+) \| [^|]+ \|$", TEXT.partition("## The checks")[2], re.M))


def test_every_check_is_in_the_table_with_its_rate() -> None:
    outcomes = false_alarms.checked(false_alarms.clean(1, served=True))
    TABLE.pop("check", None)
    assert list(TABLE) == [outcome.check for outcome in outcomes]
    for outcome in outcomes:
        stated = re.match(r"([0-9.]+) %", TABLE[outcome.check])
        assert (float(stated[1]) / 100 if stated else 0.0) == outcome.false_alarm_rate, outcome.check
