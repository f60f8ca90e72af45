"""An engine's page: counters to means and rates, buckets to quantiles, two pages to the time between."""

import json
import math
import sys

import pytest
from llama_server import llama_server

from phaselaw.cli import main
from phaselaw.engines.http_client import HttpClient
from phaselaw.errors import AnalysisError, MissingExtraError
from phaselaw.traffic.prometheus import bucket_quantile, looks_like_a_page, parse, scrape_profile

VLLM = """\
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 50000.0
vllm:generation_tokens_total{engine="0",model_name="m"} 20000.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 60.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 40.0
vllm:time_to_first_token_seconds_bucket{le="0.1",model_name="m"} 50.0
vllm:time_to_first_token_seconds_bucket{le="0.2",model_name="m"} 90.0
vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="m"} 100.0
vllm:time_to_first_token_seconds_sum{model_name="m"} 12.0
vllm:time_to_first_token_seconds_count{model_name="m"} 100.0
vllm:request_prompt_tokens_bucket{le="500.0",model_name="m"} 50.0
vllm:request_prompt_tokens_bucket{le="1000.0",model_name="m"} 100.0
vllm:request_prompt_tokens_bucket{le="+Inf",model_name="m"} 100.0
vllm:num_requests_running{model_name="m"} 3.0
process_start_time_seconds 1.7e+09
"""

LLAMA = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 3000
# TYPE llamacpp:prompt_seconds_total counter
llamacpp:prompt_seconds_total 6
llamacpp:tokens_predicted_total 900
llamacpp:tokens_predicted_seconds_total 30
llamacpp:n_decode_total 905
llamacpp:requests_processing 1
"""

NOW = 1.7e9 + 1000


def test_one_page_gives_averages_since_the_start_and_says_so() -> None:
    found = scrape_profile(parse(VLLM), now=NOW)
    assert found["basis"] == "averages since the engine started"
    assert (found["requests"], found["span_s"], found["requests_per_s"]) == (100, 1000, 0.1)
    assert (found["prompt_tokens"]["mean"], found["output_tokens"]["mean"]) == (500, 200)
    assert found["kinds"] == [{"share": 1.0, "prompt_tokens": 500, "output_tokens": 200}]
    assert found["gap_cv"] is None and "when they came" in found["gap_cv_unknown"]


def test_quantiles_are_interpolated_in_their_bucket_and_labelled() -> None:
    ttft = scrape_profile(parse(VLLM), now=NOW)["latencies"]["ttft_s"]
    assert ttft["mean"] == 0.12 and ttft["p50"] == pytest.approx(0.1)
    assert ttft["p90"] == pytest.approx(0.2) and ttft["p99"] == 0.2  # beyond the last finite limit
    assert ttft["basis"] == "interpolated between histogram buckets"
    assert bucket_quantile([1, 2, math.inf], [10, 30, 40], 0.5) == 1.5


def test_two_pages_give_the_time_between() -> None:
    later = VLLM.replace('"stop",model_name="m"} 60.0', '"stop",model_name="m"} 90.0').replace("50000.0", "65000.0")
    found = scrape_profile(parse(later), earlier=parse(VLLM), seconds=60, now=NOW)
    assert found["basis"] == "between two pages"
    assert (found["requests"], found["requests_per_s"]) == (30, 0.5)
    assert found["prompt_tokens"]["mean"] == 500 and found["output_tokens"]["mean"] == 0


def test_an_engine_that_restarted_in_between_is_noticed() -> None:
    with pytest.raises(AnalysisError, match="restarted"):
        scrape_profile(parse(VLLM.replace("20000.0", "5.0")), earlier=parse(VLLM), seconds=60, now=NOW)


def test_an_engine_that_restarted_and_has_counted_more_since_is_noticed_by_its_start() -> None:
    again = VLLM.replace("1.7e+09", "1.70001e+09").replace("50000.0", "90000.0")
    with pytest.raises(AnalysisError, match="started anew"):
        scrape_profile(parse(again), earlier=parse(VLLM), seconds=60, now=NOW)


def test_a_histogram_whose_last_bucket_is_not_there_has_the_quantiles_of_its_count() -> None:
    of = "vllm:time_to_first_token_seconds_bucket"
    lacking, none = (
        "".join(line for line in VLLM.splitlines(keepends=True) if not line.startswith(prefix))
        for prefix in (f'{of}{{le="+Inf"', of)
    )
    whole, found, without = (scrape_profile(parse(page), now=NOW)["latencies"] for page in (VLLM, lacking, none))
    assert found["ttft_s"] == whole["ttft_s"]
    assert (without["ttft_s"]["mean"], without["ttft_s"]["p50"]) == (0.12, None)


def test_llama_server_counts_tokens_but_no_requests() -> None:
    found = scrape_profile(parse(LLAMA), now=NOW)
    assert found["requests"] is None and found["kinds"] == []
    assert found["prompt_tokens_per_s_busy"] == 500 and found["decode_tokens_per_s_busy"] == 30


def test_a_real_llama_server_is_read_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with llama_server() as url:
        server = HttpClient(url)
        for _ in range(2):
            server.json("POST", "/completion", {"prompt": "Once upon a time", "n_predict": 8, "cache_prompt": False})
        assert main(["traffic", f"{url}/metrics", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["requests"] is None and found["basis"] == "averages since the engine started"
    assert found["output_tokens_total"] == 16 and found["prompt_tokens_total"] >= 8
    assert found["decode_tokens_per_s_busy"] > 1 and found["prompt_tokens_per_s_busy"] > 1


def test_models_on_one_page_can_be_told_apart() -> None:
    both = VLLM + VLLM.replace('model_name="m"', 'model_name="other"')
    assert scrape_profile(parse(both), now=NOW)["requests"] == 200
    assert scrape_profile(parse(both, model="other"), now=NOW)["requests"] == 100


def test_a_page_of_something_else_is_refused() -> None:
    with pytest.raises(AnalysisError, match="no metrics of vLLM's or llama-server's"):
        parse("# HELP x y\nx 1\n")
    assert looks_like_a_page(VLLM) and looks_like_a_page("up 1\n")
    assert not looks_like_a_page("TIMESTAMP,ContextTokens\n") and not looks_like_a_page('{"a": 1}\n')


def test_a_page_with_a_broken_line_is_refused_and_shows_the_line() -> None:
    with pytest.raises(AnalysisError, match=r"a line of it: .*many"):
        parse(VLLM + 'vllm:request_success_total{model_name="m"} many\n')


def test_an_exemplar_behind_a_value_is_not_taken_for_it() -> None:
    with_exemplar = VLLM.replace('{le="0.1",model_name="m"} 50.0', '{le="0.1",model_name="m"} 50.0 # {id="x"} 0.08')
    assert parse(with_exemplar) == parse(VLLM)


def test_without_the_parser_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.parser", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'phaselaw\[traffic\]'"):
        parse(VLLM)
