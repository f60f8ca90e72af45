"""``phaselaw plan`` and ``analyze``: data on stdout, one JSON document with --json, one line of error."""

import json
import math
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from in_process import measure
from rows import phases, written

from phaselaw.cli import main

pytestmark = pytest.mark.usefixtures("each_run_is_read_once")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("plan") / "run"
    measure("--dry-run", "--set", "replicates=1", "--set", "repetitions=3", "--out", run)
    return run


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("replicated") / "run"
    measure("--dry-run", "--set", "replicates=3", "--set", "repetitions=1", "--out", run)
    return run


def test_the_json_holds_a_row_a_model_at_full_precision(finished: Path, capsys) -> None:
    assert main(["plan", str(finished), "--tokens-per-month", "1e9", "--usd-per-hour", "1.006", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in document["rows"]][:2] == ["models/tiny-gpt2", "models/gpt2-5m"]
    for row in document["rows"]:
        assert row["usd_per_1m"] == pytest.approx(1e6 / row["tokens_per_s"] / 3600 * 1.006, rel=1e-12)
        assert row["workers"] == pytest.approx(1e9 / (30 * 86400) / row["tokens_per_s"], rel=1e-12)


FIGURES = ("tokens_per_s", "workers", "usd_per_1m", "usd_per_month")


def test_one_run_has_no_interval_of_the_next_one_in_the_json(finished: Path, capsys) -> None:
    document = plan(finished, capsys=capsys)
    assert document["schema_version"] == 2
    for row in document["rows"]:
        assert row["interval_basis"] == "this run only, over rounds" and row["incomplete"] is False
        for name in FIGURES:
            assert row[f"{name}_within_low"] < row[name] < row[f"{name}_within_high"]
            assert {row[f"{name}{of}_{end}"] for of in ("", "_mean") for end in ("low", "high")} == {None}


def test_one_run_shows_no_bracket_in_any_part_of_the_plan(finished: Path, capsys) -> None:
    assert main(["plan", str(finished), "--show", "all", "--wide"]) == 0
    out = capsys.readouterr().out
    assert "(this run: ±" in out and "What another run would give is not measured" in out
    assert "[" not in out


def test_a_plan_of_simulated_latencies_says_so(finished: Path, capsys) -> None:
    assert main(["plan", str(finished)]) == 0
    assert "SIMULATED: latencies come from a stated law, nothing was measured" in capsys.readouterr().err


def test_one_run_shows_no_bracket_in_a_reports_prices(finished: Path) -> None:
    assert main(["report", str(finished)]) == 0
    for name in ("report.md", "report.html"):
        text = (finished / name).read_text()
        of_plan = text[text.index("For 1,000,000,000 tokens a month") :].partition("Tiers")[0]
        assert "(this run: ±" in of_plan
        assert not re.search(r"\d \\?\[", of_plan), name


def test_replicates_give_one_more_run_back_to_back(replicated: Path, capsys) -> None:
    for row in plan(replicated, capsys=capsys)["rows"]:
        assert row["interval_basis"].startswith("one more run, back to back")
        for name in FIGURES:
            more, mean = ([row[f"{name}{of}_{end}"] for end in ("low", "high")] for of in ("", "_mean"))
            assert more[0] < mean[0] < row[name] < mean[1] < more[1]
            assert row[f"{name}_within_low"] is None
    assert main(["plan", str(replicated), "--wide"]) == 0
    assert "another day is not measured" in capsys.readouterr().out


def test_performance_and_capacity_show_one_interval_of_one_rate(replicated: Path) -> None:
    assert main(["report", str(replicated)]) == 0
    text = (replicated / "report.md").read_text()
    performance = text.partition("## Performance by model")[2].partition("##")[0]
    shown = re.findall(r"[\d,.]+ \\?\[[\d,.]+, [\d,.]+\\?\]", performance)
    assert len(shown) == 7
    capacity = text.partition("## Capacity and price")[2]
    assert all(each in capacity for each in shown)


def test_a_spread_between_runs_that_is_given_is_called_assumed(finished: Path, capsys) -> None:
    document = plan(finished, "--between-runs", "20%", capsys=capsys)
    assert document["assumptions"]["between_runs"] == 0.2
    for row in document["rows"]:
        assert row["usd_per_1m_high"] / row["usd_per_1m"] == pytest.approx(
            math.exp(1.96 * 0.2 * math.sqrt(2)), rel=1e-3
        )
    assert main(["plan", str(finished), "--between-runs", "0.2", "--wide"]) == 0
    assert "assumed: runs differ by 20 %" in capsys.readouterr().out


def test_the_table_says_that_workers_are_a_lower_bound_and_what_is_assumed(finished: Path, capsys) -> None:
    assert main(["plan", str(finished)]) == 0
    out = capsys.readouterr().out
    assert "lower bound" in out and "(assumed)" in out and "models/gpt2-100m" in out


def test_models_can_be_chosen_and_unknown_ones_are_named(finished: Path, capsys) -> None:
    assert main(["plan", str(finished), "--models", "models/gpt2-25m", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 1
    assert main(["plan", str(finished), "--models", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err


def plan(finished: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> dict:
    assert main(["plan", str(finished), *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_only_what_is_asked_for_is_printed(finished: Path, capsys) -> None:
    assert main(["plan", str(finished)]) == 0
    first = capsys.readouterr()
    assert "Tiers" not in first.out and "--show requests,budget,users,api,day,compare" in first.err
    assert main(["plan", str(finished), "--tiers", "models/gpt2-5m,models/gpt2-100m"]) == 0
    assert "Cascade" in capsys.readouterr().out
    assert main(["plan", str(finished), "--show", "all"]) == 0
    assert "Sensitivity" in capsys.readouterr().out


def test_a_load_in_requests_of_ones_own_kinds(finished: Path, tmp_path: Path, capsys) -> None:
    mixes = tmp_path / "mixes.csv"
    mixes.write_text("name,prompt_tokens,output_tokens\nask,300,100\n")
    document = plan(finished, "--requests-per-month", "2592000", "--mixes", str(mixes), capsys=capsys)
    assert document["assumptions"]["requests_per_s"] == 1.0 and document["assumptions"]["tokens_per_request"] == 400
    for row, load in zip(document["rows"], document["requests"], strict=True):
        assert row["workers"] == pytest.approx(400 / row["tokens_per_s"]) == load["workers"]


def test_whole_workers_keep_the_headroom_that_is_asked_for(finished: Path, capsys) -> None:
    words = ("--utilisation", "0.5", "--burst", "2", "--spares", "1")
    for row in plan(finished, *words, capsys=capsys)["rows"]:
        assert row["whole_workers"] == math.ceil(row["workers"] * 4) + 1


def test_a_price_list_says_which_price_and_how_old(finished: Path, tmp_path: Path, capsys) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text("Cloud,GPU Type,GPUs,On-demand,Per-GPU,Spot\nX,H100 (80 GB),8,24,3,\n")
    words = ["plan", str(finished), "--prices", str(prices), "--accelerator", "h100", "--json"]
    assert main([*words, "--prices-date", "2020-01-01"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["assumptions"]["usd_per_hour"] == 3.0 and document["assumptions"]["price"]["stale"] is True
    assert "stale" in told.err and "X (8 x H100 (80 GB))" in told.err
    assert document["assumptions"]["price"]["taken"] == "median"
    assert main(words) == 0
    assert "no date" in capsys.readouterr().err


def test_several_runs_are_pooled_and_their_noise_is_in_the_intervals(finished: Path, tmp_path: Path, capsys) -> None:
    others = [tmp_path / "b", tmp_path / "c"]
    for seed, path in enumerate(others, start=5):
        same = ("--set", "replicates=1", "--set", "repetitions=3")
        measure("--dry-run", "--set", f"seed={seed}", *same, "--out", path)
    document = plan(finished, *map(str, others), capsys=capsys)
    assert {row["interval_basis"] for row in document["rows"]} == {"one more run"}


def test_an_hours_price_for_each_backend(finished: Path, capsys) -> None:
    [backend] = {row["backend"] for row in plan(finished, capsys=capsys)["rows"]}
    document = plan(finished, "--usd-per-hour", f"{backend}=4", capsys=capsys)
    assert {row["usd_per_hour"] for row in document["rows"]} == {4.0}
    assert main(["plan", str(finished), "--usd-per-hour", "other=4"]) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--show", "everything"], ["--tiers", "one"], ["--tiers", "models/gpt2-5m,nobody"], ["--compare", "nobody"],
        ["--compare", "models/gpt2-5m,nobody"],
        ["--utilisation", "2"], ["--burst", "0.5"], ["--spares=-1"], ["--premium-share", "2"],
        ["--failure-usd=-1"], ["--failure-usd", "1"], ["--spot"],
        ["--accelerator", "H100"], ["--prices", "none.csv", "--accelerator", "H100"], ["--mixes", "none.csv"],
        ["--api", "no-such-model"], ["--api-in", "1"], ["--api-cached", "1"], ["--cached-share", "200%"],
        ["--success-rates", "none.csv"], ["--usd-per-hour", "cheap"], ["--rates", "x"], ["--volumes", "x"],
        ["--usd-per-hour", "1,5"], ["--usd-per-hour", "hf_cpu_fp32=1,nobody=2"], ["--interruptions", "1%"],
        ["--scale-out-delay", "1min"], ["--accelerators-per-worker", "8"],
        ["--requests-per-s", "0"], ["--between-runs", "much"], ["--requests-per-month", "nan"], ["--batch", "0"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_one_line_and_exit_2(words: list[str], finished: Path, capsys) -> None:
    assert main(["plan", str(finished), *words]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert words[0].split("=")[0] in told.err or "none.csv" in told.err


@pytest.mark.parametrize("value", ["0", "-5", "nan"])
def test_a_price_that_is_no_price_is_a_usage_error(finished: Path, value: str, capsys) -> None:
    assert main(["plan", str(finished), f"--usd-per-hour={value}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_analyze_writes_every_table_where_it_is_told(finished: Path, tmp_path: Path, capsys) -> None:
    assert main(["analyze", str(finished), "--out", str(tmp_path / "t"), "--bootstrap", "50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert sorted(document["tables"]) == sorted(path.stem for path in (tmp_path / "t").glob("*.csv"))
    assert document["tables"]["summary_by_model_backend_mode"] == 63


def test_analyze_of_nothing_is_one_line(tmp_path: Path, capsys) -> None:
    assert main(["analyze", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("pipe", [True, False], ids=["a pipe", "a terminal"])
def test_a_plan_answers_first_and_no_line_is_over_80_characters(
    finished: Path, pipe: bool, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    if not pipe:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("NO_COLOR", "1")
    assert main(["plan", str(finished), "--show", "all"]) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1] == "One request at a time: batching or more slots would lower this."
    assert lines[2].startswith("Cheapest that is measured for this load: models/tiny-gpt2 on hf_cpu_fp32, $")
    shown = [line.split() for line in lines if line.startswith("models/") and " measured " in line]
    dollars = [float(words[1].replace(",", "")) for words in shown[:7]]
    assert len(dollars) == 7 and dollars == sorted(dollars)


def test_a_wide_plan_has_every_column_and_bracket(replicated: Path, capsys) -> None:
    assert main(["plan", str(replicated)]) == 0
    out = capsys.readouterr().out
    assert "[" not in out and "With --wide in brackets" in " ".join(out.split())
    assert main(["plan", str(replicated), "--wide"]) == 0
    assert re.search(r"\d \[[\d,.]+, [\d,.]+\]", capsys.readouterr().out)


def test_numbers_are_read_as_people_write_them(finished: Path, capsys) -> None:
    words = ("--tokens-per-month", "1.5B", "--utilization", "70%", "--premium-share", "10%")
    given = plan(finished, *words, capsys=capsys)["assumptions"]
    assert (given["tokens_per_month"], given["utilisation"], given["premium_share"]) == (1.5e9, 0.7, 0.1)


def test_a_rate_from_elsewhere_needs_no_run_and_is_called_given(capsys) -> None:
    words = ["--tokens-per-s", "10,755", "--params", "8B", "--usd-per-hour", "2.5", "--tokens-per-month", "100B"]
    assert main(["plan", *words, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert (row["rate_status"], row["params_millions"], row["whole_workers"]) == ("given", 8000.0, 4)
    assert row["usd_per_1m"] == pytest.approx(1e6 / 10755 / 3600 * 2.5)
    assert main(["plan", *words]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "Rates were given, not measured." in out
        and "Cheapest for this load: a model of 8B parameters on given, $7,200 a month" in out
    )


@pytest.mark.parametrize(
    "words",
    [
        *([], ["--tokens-per-s", "5", "--models", "m"], ["run", "--params", "8B"], ["run", "--tokens-per-s", "5"]),
        ["--tokens-per-s", "1e-300"],
    ],
)
def test_a_rate_that_a_worker_can_have_and_runs_are_one_or_the_other(words: list[str], capsys) -> None:
    assert main(["plan", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_model_whose_rates_are_nothing_is_named_and_left_out(tmp_path: Path, capsys) -> None:
    known = {"gen_tokens_target": 20, "prompt_tokens_raw": 30}
    rows = [*phases(1, 2, **known, model="a", tokens_per_s=0.0), *phases(1, 2, **known, model="b", tokens_per_s=9.0)]
    document = plan(written(rows, tmp_path / "run"), capsys=capsys)
    assert [row["model"] for row in document["rows"]] == ["b"]
    assert "left out, since their rates are 0 or not known: a" in document["notes"]


def test_each_backends_model_has_its_own_context(tmp_path: Path, capsys) -> None:
    known = {"gen_tokens_target": 20, "prompt_tokens_raw": 30, "tokens_per_s": 9.0}
    run = written([row for backend in "pq" for row in phases(1, 2, **known, backend=backend)], tmp_path / "run")
    for order in ("pq", "qp"):
        positions = [
            {"backend": backend, "model": "m", "n_positions": {"p": 40, "q": 4000}[backend]} for backend in order
        ]
        pl.DataFrame(positions).write_csv(run / "resolved_model_params.csv")
        found = plan(run, "--requests-per-s", "1", "--mixes", capsys=capsys)["rows"]
        assert {row["backend"]: row["rate_status"] for row in found} == {"p": "not_possible", "q": "extrapolated"}


def test_a_budget_carries_a_load_that_fits_into_it(finished: Path, capsys) -> None:
    headroom = ("--utilisation", "0.5", "--burst", "2", "--spares", "1", "--usd-per-hour", "1")
    row, *_ = plan(finished, "--budget", "3k", *headroom, capsys=capsys)["budget"]
    carried = row["carried_tokens_per_month"]
    assert (row["whole_workers"], row["usd_per_month_whole"], row["fits"]) == (4, 2880, "yes")
    for volume, most in ((carried * 0.999, 4), (carried * 1.001, 5)):
        words = ("--tokens-per-month", str(volume), "--models", row["model"], *headroom)
        assert plan(finished, *words, capsys=capsys)["rows"][0]["whole_workers"] == most
    assert main(["plan", str(finished), "--budget", "3k"]) == 0
    assert "Budget" in capsys.readouterr().out


def test_an_accelerators_price_is_not_put_on_a_rate_of_a_cpu(finished: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(finished / "metrics.csv", run)
    models = pl.read_csv(finished / "resolved_model_params.csv").with_columns(device=pl.lit("cpu"))
    models.write_csv(run / "resolved_model_params.csv")
    prices = tmp_path / "prices.csv"
    prices.write_text("Cloud,GPU Type,On-demand,date\nX,H100,3,2026-11-01\n")
    words = ["--prices", str(prices), "--accelerator", "H100"]
    assert main(["plan", str(run), *words]) == 2
    told = capsys.readouterr().err
    assert "hf_cpu_fp32 was measured on a CPU" in told and told.count("\n") == 1
    assert main(["plan", "--tokens-per-s", "5k", *words]) == 0
    assert "$3 a worker's hour (price of 2026-11-01: X, H100, median)" in " ".join(capsys.readouterr().out.split())


GPUS = """provider,accelerator,gpus,per-hour (EUR),date
One,H100,1,2.4,2026-11-01
Two,H100,8,22.4,2026-11-01
Three,H100,1,3.1,2026-11-01
One,A100 80GB,1,1.4,2026-11-01
Two,A100 80GB,1,call us,2026-11-01
"""


def test_several_accelerators_stand_in_one_table_each_with_its_own_rate_and_price(tmp_path: Path, capsys) -> None:
    (tmp_path / "gpus.csv").write_text(GPUS)
    words = ["plan", "--tokens-per-s", "H100=10755,A100 80GB=5.2k", "--prices", str(tmp_path / "gpus.csv")]
    assert main([*words, "--tokens-per-month", "60B", "--csv", str(tmp_path / "tables")]) == 0
    told = capsys.readouterr()
    assert "not understood, the first at" in told.err and "gpus.csv:6" in told.err
    assert "$" not in told.out and "Cheapest for this load: A100 80GB, €5,040 a month" in told.out
    rows = pl.read_csv(tmp_path / "tables" / "rows.csv")
    assert dict(rows.select("model", "usd_per_hour").iter_rows()) == {"H100": 2.8, "A100 80GB": 1.4}
    assert dict(rows.select("model", "whole_workers").iter_rows()) == {"H100": 3, "A100 80GB": 5}


def test_a_gpu_that_only_tr121s_manifest_names_has_no_other_accelerators_price(tmp_path: Path, capsys) -> None:
    run = written(phases(1, 2, backend="hf_gpu", gpu_peak_mb=90.0, tokens_per_s=100.0), tmp_path / "run")
    (run / "manifest.json").write_text('{"nvml": {"name": "NVIDIA GeForce RTX 4080", "memory_total_mb": 12282}}')
    (tmp_path / "prices.csv").write_text("Cloud,GPU Type,On-demand\nX,H100,3\nX,RTX 4080,1\n")
    words = ["plan", str(run), "--prices", str(tmp_path / "prices.csv"), "--accelerator"]
    assert main([*words, "H100"]) == 2
    assert "hf_gpu was measured on NVIDIA GeForce RTX 4080" in capsys.readouterr().err
    assert main([*words, "rtx 4080"]) == 0


def served(at: int, clients: int) -> list[dict]:
    """A group's call of so many clients: the first token after 120 ms for one client, 1,326 ms for two."""
    ttft = 120.0 if clients == 1 else 1326.0
    known = {"backend": "vllm", "backend_kind": "openai", "concurrency": clients, "rep": at, "sent_at_ms": 1e4 * at}
    known |= {"ttft_ms": ttft, "client_e2e_ms": ttft + 400, "request_ms": ttft + 400, "decode_step_ms": 20.0}
    return phases(
        ttft, 400.0, **known, gen_tokens_target=20, gen_tokens_raw=20, prompt_tokens_raw=30, tokens_per_s=90.0
    )


def test_users_at_once_are_the_most_that_were_measured_within_the_limits(tmp_path: Path, finished, capsys) -> None:
    calls = [call for clients in (1, 2) for at in range(3) for _ in range(clients) for call in served(at, clients)]
    words = ["plan", str(written(calls, tmp_path / "run")), "--slo-ttft", "1s"]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    [row] = document["users"]
    found = {name: row[name] for name in ("scenario", "users", "ttft_ms_p95", "next_clients", "next_ttft_ms_p95")}
    assert found == {"scenario": "s", "users": 1, "ttft_ms_p95": 120, "next_clients": 2, "next_ttft_ms_p95": 1326}
    assert document["assumptions"]["slo_ms"] == [1000, None] and row["rate_status"] == "measured"
    out = shown(*words, "--slo-tpot", "50ms", capsys=capsys)
    assert "On every prompt that was measured: 1 of m on vllm." in out and "no queue model" in out
    assert "Up to 2 clients at once were measured; one at a time served the most within the limits on waiting." in out
    assert "2 or more of m on vllm" in shown(*words[:2], "--slo-ttft", "2s", capsys=capsys)
    words += ["--tokens-per-month", str(90 * 2_592_000 * 0.75)]  # a worker of one place, busy 75 % of the time: M/M/1
    assert "find all these places taken, and wait longer (Erlang C): 75.0 % for m." in shown(*words, capsys=capsys)
    [row] = plan(*words[1:], "--spares", "1", "--utilisation", "0.5", capsys=capsys)["rows"]
    assert row["all_taken_share"] == pytest.approx(2 * 0.375**2 / 1.375)  # of two, without the spare
    assert plan(words[1], capsys=capsys)["rows"][0]["all_taken_share"] is None
    [row] = plan(written(calls, tmp_path / "run"), "--slo-ttft", "100ms", capsys=capsys)["rows"]
    assert (row["clients"], row["whole_workers"], row["why"]) == (
        0,
        None,
        "one client alone waited longer than the limits",
    )
    assert "one alone waited longer than the limits." in shown(*words[:2], "--slo-ttft", "100ms", capsys=capsys)
    calls += phases(120, 400, backend="hf", gen_tokens_target=20, prompt_tokens_raw=30, tokens_per_s=900.0)
    rows = plan(written(calls, tmp_path / "two"), "--slo-ttft", "1s", capsys=capsys)["rows"]
    assert {row["backend"]: (row["rate_status"], row["whole_workers"]) for row in rows} == {
        "vllm": ("measured", 5), "hf": ("not_possible", None)
    }  # fmt: skip
    assert main(["plan", str(finished), "--slo-ttft", "1s", "--batch", "8"]) == 2
    assert "--batch: how many are served at once follows from --slo-ttft" in capsys.readouterr().err
    assert main(["plan", str(finished), "--slo-ttft", "1s"]) == 2
    assert "no run swept clients" in capsys.readouterr().err


def test_a_memory_that_is_too_small_leaves_no_price(tmp_path: Path, capsys) -> None:
    run = written(phases(1, 2, gen_tokens_target=20, prompt_tokens_raw=30, tokens_per_s=100.0), tmp_path / "run")
    shape = {"n_layer": 3, "n_embd": 512, "n_head": 8, "vocab_size": 50257, "weights_bytes": 100e6}
    known = {"model": "m", "kind": "hf", "backend": "b", "device": "cpu", "dtype": "fp32"}
    pl.DataFrame([known | shape | {"params_millions_measured": 25.0}]).write_csv(run / "resolved_model_params.csv")
    words = ["plan", str(run), "--requests-per-s", "1", "--memory"]
    assert "No model can serve this load." in shown(*words, "90MB", capsys=capsys)
    assert "Not possible:" in shown(*words, "90MB", "--show", "requests", capsys=capsys)
    assert "$" in shown(*words, "16GB", capsys=capsys)


def test_a_hosted_api_is_set_beside_own_workers(finished: Path, tmp_path: Path, capsys) -> None:
    words = ("--api-in", "1", "--api-out", "4", "--usd-per-hour", "0.1", "--requests-per-s", "2", "--mixes")
    for row in plan(finished, *words, capsys=capsys)["api"]:
        assert row["usd_per_month_api"] == pytest.approx(2 * 2_592_000 * (832 * 1 + 360 * 4) / 1e6)
        assert row["pays_from_tokens_per_month"] == pytest.approx(72 / (832 * 1 + 360 * 4) * 1192 * 1e6)
    shown("report", str(finished), *words, "--out", str(tmp_path), capsys=capsys)
    assert "(analysis/plots/api-by-volume.svg)" in (tmp_path / "report.md").read_text()
    months = plan(finished, *words, capsys=capsys)["api_by_volume"]
    assert len(months) == 6 * 41 and months[40]["tokens_per_month"] == pytest.approx(
        1e4 * months[0]["tokens_per_month"]
    )
    out = shown("plan", str(finished), *words, "--show", "api", capsys=capsys)
    assert "The API, at the prices given: $11,778.05 a month. Own workers pay from 37,800,000 tokens" in out
    assert "never pay, at any volume" in shown("plan", str(finished), "--api", "gpt-4o-mini", capsys=capsys)


def shown(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(list(words)) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_day_of_the_log_hour_by_hour(finished: Path, tmp_path: Path, capsys) -> None:
    usage = ["start_time,end_time,num_model_requests,input_tokens,output_tokens"]
    for hour in range(24):
        n = 720_000 if 8 <= hour < 20 else 72_000
        usage.append(f"{1795824000 + 3600 * hour},{1795827600 + 3600 * hour},{n},{n * 10},{n * 60}")
    (tmp_path / "usage.csv").write_text("\n".join(usage))
    profile = str(tmp_path / "profile.json")
    assert main(["traffic", str(tmp_path / "usage.csv"), "--out", profile]) == 0
    capsys.readouterr()
    words = ("--traffic", profile, "--day", "--usd-per-hour", "1", "--rates", "spot=0.4", "--models", "gpt2-25m")
    document = plan(finished, *words, "--scale-out-delay", "2min", capsys=capsys)
    static, reactive, spot = document["day"]
    assert len(document["day_hours"]) == 24
    assert reactive["usd_per_month_whole"] < static["usd_per_month_whole"]
    assert spot["usd_per_month_whole"] == pytest.approx(0.4 * static["usd_per_month_whole"])
    assert reactive["worst_hour"] == "08:00" and reactive["waited_requests"] > 0 == static["waited_requests"]
    told = shown("plan", str(finished), *words, "--show", "day,mixes", capsys=capsys)
    assert "A day" in told and "Kinds of request (of the traffic profile)" in told
    assert main(["plan", str(finished), "--day"]) == 2
    edited = json.loads((tmp_path / "profile.json").read_text())
    for hour in edited["by_hour_of_day"]:
        hour["requests_per_s"] *= 2000
    (tmp_path / "profile.json").write_text(json.dumps(edited))
    capsys.readouterr()
    assert main(["plan", str(finished), *words]) == 2
    assert "by_hour_of_day comes to 2.2e+05 requests/s, requests_per_s is 110;" in capsys.readouterr().err


def test_a_cached_prompt_is_cheaper_at_the_api(capsys) -> None:
    given = ["plan", "--tokens-per-s", "5k", "--api-in", "1", "--api-out", "4", "--json"]
    paid = []
    for more in ([], ["--api-cached", "0.1"], ["--api-cached", "0.1", "--cached-share", "50%"]):
        assert main([*given, *more]) == 0
        paid.append(json.loads(capsys.readouterr().out)["api"][0]["usd_per_month_api"])
    assert paid[0] == paid[1] and paid[2] == pytest.approx(paid[0] - 1e9 / 1192 * 832 * 0.5 * 0.9 / 1e6)


def test_amounts_are_of_one_currency(capsys) -> None:
    words = ["plan", "--tokens-per-s", "10k", "--usd-per-hour"]
    assert main([*words, "€0.9", "--rates", "spot=0.3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["assumptions"]["currency"] == "EUR" and document["rows"][0]["usd_per_hour"] == 0.9
    assert main([*words, "€0.9", "--rates", "spot=$0.3"]) == 2
    assert "EUR and USD" in capsys.readouterr().err
