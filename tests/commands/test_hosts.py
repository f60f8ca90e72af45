"""A run over several hosts: laws by host; one law, the host a level of its noise, only where that is asked for."""

import json
from pathlib import Path

import polars as pl
import pytest
from journals import create, study

from phaselaw import api
from phaselaw.cli import main
from phaselaw.engines import module_for
from phaselaw.errors import AnalysisError
from phaselaw.measure.calls import measure
from phaselaw.rundir.read import runs_by_host

pytestmark = pytest.mark.usefixtures("each_run_is_read_once")

SLOWER = {"a": 1.0, "b": 2.0, "c": 2.2}
"""How many times as long a call takes on each host."""
CALL_NOISE = 0.02


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two replicates on each of three hosts."""
    path = tmp_path_factory.mktemp("hosts") / "run"
    sizes = [
        {"name": f"m{size}", "kind": "simulated", "params_millions": size} for size in (1.0, 4.0, 16.0, 64.0, 200.0)
    ]
    asked = study(
        replicates=6,
        backends=[{"name": "sim", "kind": "simulated", "overhead_ms": 0, "call_noise": CALL_NOISE}],
        models=sizes,
    )
    with create(path, asked) as made:
        for replicate, name in enumerate("abcabc"):
            process = made.begin_next_process({"name": name, "cpu_model": f"the processor of {name}"})
            backend = asked.backends[0].model_copy(update={"params_ms": SLOWER[name]})
            engines = {"sim": module_for("simulated").create(backend)}
            counts = {"process_idx": process, "first_call_idx": made.next_call_idx}
            for event in measure(asked, engines=engines, replicate=replicate, **counts):
                made.append(event)
        made.finish("complete")
    return path


def median_ms(loaded: api.Loaded) -> float:
    return float(loaded.tables["summary_by_model_backend_mode"]["latency_median_ms"].median())


def test_hosts_are_not_pooled_unasked(run: Path) -> None:
    with pytest.raises(AnalysisError, match=r"measured on several hosts \(a, b, c\).*--across-hosts pools"):
        api.load(run)


def test_the_folder_of_a_host_stands_for_what_it_measured(run: Path) -> None:
    assert [path.name for path in runs_by_host(run)] == ["a", "b", "c"]
    a, b = (api.load(run / "hosts" / name) for name in "ab")
    assert median_ms(b) / median_ms(a) == pytest.approx(SLOWER["b"], rel=0.05)
    assert set(a.rows["host"]) == {"a"} and a.rows["replicate"].unique().to_list() == [0, 3]
    assert a.run.manifest["host"]["cpu_model"] == "the processor of a"
    assert set(a.tables["throughput_intervals"]["interval_basis"]) == {
        "one more run, back to back (another day is not measured)"
    }


def test_analyze_writes_the_tables_of_each_host(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(run), "--json", "--bootstrap", "50"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["hosts"]) == ["a", "b", "c"]
    for name in "abc":
        assert (run / "hosts" / name / "analysis" / "scaling_fits.csv").is_file()
        assert said["hosts"][name]["directory"] == str(run / "hosts" / name / "analysis")
    assert not (run / "analysis").exists()


def test_across_hosts_the_host_is_a_level_of_the_noise(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(run), "--across-hosts", "--bootstrap", "50"]) == 0
    assert "differ in host cpu_model" in capsys.readouterr().err
    rates = pl.read_csv(run / "analysis" / "throughput_intervals.csv")
    assert set(rates["interval_basis"]) == {"one more host"} and set(rates["n_runs"]) == {3}
    # Hosts that differ twofold: what one more of them gives lies that far apart, however exact each one's calls are.
    width = (rates["tokens_per_s_high"] / rates["tokens_per_s_low"]).median()
    alone = api.load(run / "hosts" / "a").tables["throughput_intervals"]
    assert width > SLOWER["b"] > (alone["tokens_per_s_high"] / alone["tokens_per_s_low"]).median()
    fits = pl.read_csv(run / "analysis" / "scaling_fits.csv")
    assert "models, calls and 3 hosts" in set(fits["slope_interval_holds"])
