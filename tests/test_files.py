"""Files are whole or absent, and a spreadsheet runs nothing of them."""

import csv
import io
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phaselaw.files import cell_text, plain_text, write_csv, write_json, write_whole
from phaselaw.rundir import read as runs


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old and longer than the new")
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"


def test_a_reader_never_sees_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "a.csv", []
    path.write_text("old")
    monkeypatch.setattr("os.fsync", lambda _descriptor: seen.append(path.read_text()))
    write_whole(path, "new")
    assert seen == ["old"]


def test_a_name_that_is_no_utf8_can_be_written_and_read_as_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"argv": ["run", "\udcff", "ü"]})
    text = (tmp_path / "a.json").read_bytes().decode()
    assert json.loads(text) == {"argv": ["run", "\udcff", "ü"]}
    assert "ü" in text


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_json_has_no_nan(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": bad})
    assert not (tmp_path / "a.json").exists()


@given(st.floats(allow_nan=False))
def test_a_float_keeps_every_bit(value: float) -> None:
    assert float(cell_text(value)) == value


def test_missing_is_empty_and_so_is_what_is_no_number(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ("a", "b", "c"), [{"a": None, "b": float("nan"), "c": True}])
    assert (tmp_path / "a.csv").read_text() == "a,b,c\n,,True\n"


@pytest.mark.parametrize("formula", ["=cmd()", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_text_that_begins_a_formula_is_made_text(formula: str) -> None:
    assert cell_text(formula) == f"'{formula}"


def test_a_negative_number_is_no_formula() -> None:
    assert cell_text(-1.5) == "-1.5"
    assert cell_text(-3) == -3


# What YAML, argv and error messages can hold; CSV itself has no place for NUL.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@given(texts)
def test_every_text_comes_back_from_a_cell(text: str) -> None:
    assert plain_text(cell_text(text)) == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(texts.filter(lambda text: text not in {"", "nan", "NaN"}), min_size=1, max_size=5))
def test_every_text_comes_back_from_a_file_by_pythons_reader_and_by_ours(tmp_path: Path, values: list[str]) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, ("error", "n"), [{"error": value, "n": index} for index, value in enumerate(values)])
    read = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert [plain_text(row[0]) for row in read[1:]] == values
    assert runs.read_csv(path, {"error": pl.String})["error"].to_list() == values
