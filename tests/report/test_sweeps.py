"""What a report says of a sweep: TR121's figure first, what changes, and nothing of sweeps where none was run."""

from pathlib import Path

from in_process import measure

from phaselaw.cli import main

LAW = """\
run_name: swept
gen_tokens: 8
repetitions: 3
seed: 5
scenarios: [{name: short, prompt_tokens: 9}]
backends: [{name: sim, kind: simulated, overhead_ms: 1, sequence_ms: 2, prompt_ms: 0.1, prompt_pair_ms: 0.001}]
models: [{name: a, kind: simulated, params_millions: 5}, {name: b, kind: simulated, params_millions: 25},
         {name: c, kind: simulated, params_millions: 50}, {name: d, kind: simulated, params_millions: 100}]
"""


def section_of(run: Path) -> str:
    """The report's section on sweeps; empty where it has none."""
    return (run / "report.md").read_text().partition("\n### Sweeps\n")[2].partition("\n##")[0]


def swept(folder: Path, *axes: str) -> Path:
    (folder / "study.yaml").write_text(LAW)
    words = [word for axis in axes for word in ("--axis", axis)]
    assert main(["sweep", str(folder / "study.yaml"), *words, "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_decodes_share_comes_first_and_says_where_it_dominates(tmp_path: Path) -> None:
    run = swept(tmp_path, "gen_tokens=4,16,64")
    section = section_of(run)
    assert section.strip().startswith("![Decode's share of the whole")
    assert (run / "analysis" / "plots" / "decode-fraction-by-gen-tokens.svg").read_text().startswith("<")
    assert "decode passes 90% of end-to-end latency at" in section


def test_a_grid_shows_rates_lengths_exponents_and_the_step_time_model(tmp_path: Path, capsys) -> None:
    run = swept(tmp_path, "batch_size=1,2,4", "prompt_tokens=16,64,256,512")
    section, terminal = section_of(run), capsys.readouterr().out
    assert all(f"sim, batch {size}" in terminal for size in (1, 2, 4))
    assert "are geometric means over prompts of 16 to 512 tokens" in (run / "report.md").read_text()
    for said in (
        "Along batch size:", "Along prompt tokens:", "Is the exponent stable?", "Generated tokens/s against batch size",
        "Prefill (ms) against prompt tokens", "attention's square", "Decode step against batch size.",
    ):  # fmt: skip
        assert said in section, said
    assert "\n### The step-time model\n" in (run / "report.md").read_text()
    assert section.index("prompts of 16 tokens") < section.index("prompts of 512 tokens")


def test_a_run_that_swept_nothing_has_no_such_section(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(LAW)
    assert main(["run", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert section_of(tmp_path / "run") == ""


def test_a_few_prompts_that_backends_count_differently_are_no_sweep_of_lengths(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        LAW.replace("{name: short, prompt_tokens: 9}", "{name: one, prompt_tokens: 1}, {name: nine, prompt_tokens: 9}")
    )
    run = tmp_path / "run"
    measure(tmp_path / "study.yaml", "--out", run)
    metrics = (run / "metrics.csv").read_text().splitlines()
    seq_len = metrics[0].split(",").index("seq_len")
    others = [line.replace(",sim,", ",other,").split(",") for line in metrics[1:]]
    for cells in others:
        cells[seq_len] = str(20 + int(cells[seq_len]))
    rows = [*metrics, *(",".join(cells) for cells in others)]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    assert main(["report", str(tmp_path / "metrics.csv")]) == 0
    assert "Along prompt tokens" not in (tmp_path / "report.md").read_text()
