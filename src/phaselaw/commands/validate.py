"""Leave each model out, predict it from the others, and set that beside what was measured.

examples:
  phaselaw validate runs/a                          is what ``phaselaw predict`` says of this run to be trusted?
  phaselaw validate runs/a --backends hf_cpu_fp32 --json
"""

import argparse

from phaselaw.commands.console import screen
from phaselaw.commands.options import print_json
from phaselaw.commands.predict import add_shared, finite, load_tables
from phaselaw.errors import AnalysisError
from phaselaw.laws.prediction import PREDICTION_COVERAGE
from phaselaw.report.document import Section, display
from phaselaw.report.prediction import READING, left_out
from phaselaw.report.subject import table_rows
from phaselaw.report.terminal import print_fitting
from phaselaw.tables import BUDGET

add_options = add_shared


def run(args: argparse.Namespace) -> None:
    loaded, tables = load_tables(args)
    unsaid = [BUDGET] if loaded.analysis.one_budget else []
    validation, coverage = (tables[name].drop(unsaid) for name in ("prediction_validation", "prediction_coverage"))
    if validation.is_empty():
        raise AnalysisError("nothing to validate: it takes four measured models, three to predict the fourth from")
    if args.json:
        document = {"schema_version": 1, "level": args.level}
        print_json(finite(document | {"predictions": validation.to_dicts(), "coverage": coverage.to_dicts()}))
    else:
        shown = left_out(table_rows(validation)), display(PREDICTION_COVERAGE, table_rows(coverage))
        print_fitting(Section(title="", blocks=(*shown, *READING)), screen(), as_wide=True)
