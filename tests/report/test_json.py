"""``report --json``: all of a report as one document."""

import json
from pathlib import Path

from phaselaw.cli import main


def test_all_of_a_report_is_one_json_document(hostile_run: Path, tmp_path: Path, capsys) -> None:
    assert main(["report", str(hostile_run), "--out", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1 and document["trust"]["mark"] in ("sound", "with cautions", "suspect")
    [laws] = [
        block
        for section in document["sections"]
        for block in section["blocks"]
        if section["title"] == "Scaling exponents" and isinstance(block, dict) and "rows" in block
    ]
    assert {"backend", "slope", "verdict"} <= laws["rows"][0].keys()
    assert (tmp_path / "report.html").is_file()
