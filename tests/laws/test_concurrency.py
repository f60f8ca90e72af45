"""Throughput against clients: the laws put in come out, and a group that lost a call is left out."""

from typing import Any

import polars as pl
import pytest
from rows import row_of, table_of

from phaselaw.laws.concurrency import concurrency_fits, concurrency_throughput, users_within

CLIENTS = (1, 2, 4, 8, 16)


def rate(clients: int, contention: float, coherency: float) -> float:
    return 100 * clients / (1 + contention * (clients - 1) + coherency * clients * (clients - 1))


def rows(contention: float, coherency: float, *, clients: tuple[int, ...] = CLIENTS, tokens: int = 50) -> pl.DataFrame:
    found: list[dict[str, Any]] = []
    for number in clients:
        took_ms = 1e3 * number * tokens / rate(number, contention, coherency)
        for rep in range(2):
            found += [
                row_of(
                    "kv_decode", 1.0, backend="served", backend_kind="openai", gen_tokens_target=tokens,
                    gen_tokens_raw=tokens, concurrency=number, rep=rep, sent_at_ms=1e6 * rep, client_e2e_ms=took_ms,
                    ttft_ms=10.0 * number, itl_p50_ms=1.0,
                )
                for _ in range(number)
            ]  # fmt: skip
    return table_of(found)


def test_a_groups_throughput_is_its_tokens_over_its_whole_time() -> None:
    table = concurrency_throughput(rows(0.1, 0.0))
    assert table["concurrency"].to_list() == list(CLIENTS)
    assert table["output_tokens_per_s_median"].to_list() == pytest.approx([rate(n, 0.1, 0) for n in CLIENTS])
    assert table["achieved_concurrency_median"].to_list() == pytest.approx(list(CLIENTS))
    assert table["ttft_ms_median"].to_list() == [10.0 * n for n in CLIENTS]
    assert table["n_groups"].to_list() == [2] * 5


@pytest.mark.parametrize(("contention", "coherency"), [(0.05, 0.01), (0.3, 0.002), (0.1, 0.0), (0.0, 0.0)])
def test_the_universal_law_put_in_comes_out(contention: float, coherency: float) -> None:
    fits = concurrency_fits(concurrency_throughput(rows(contention, coherency)))
    found = fits.row(by_predicate=pl.col("throughput_law") == "universal_scalability", named=True)
    assert found["single_client_tokens_per_s"] == pytest.approx(100)
    assert found["contention"] == pytest.approx(contention, abs=1e-9)
    assert found["coherency"] == pytest.approx(coherency, abs=1e-9)
    assert found["r2"] == pytest.approx(1)


def test_amdahls_law_put_in_comes_out_and_has_no_peak() -> None:
    fits = concurrency_fits(concurrency_throughput(rows(0.2, 0.0)))
    found = fits.row(by_predicate=pl.col("throughput_law") == "amdahl", named=True)
    assert found["contention"] == pytest.approx(0.2)
    assert found["peak_clients"] is None


def test_a_peak_is_where_throughput_is_highest() -> None:
    fits = concurrency_fits(concurrency_throughput(rows(0.1, 0.01)))
    found = fits.row(by_predicate=pl.col("throughput_law") == "universal_scalability", named=True)
    assert found["peak_clients"] == pytest.approx(90**0.5)
    assert found["peak_tokens_per_s"] >= max(rate(n, 0.1, 0.01) for n in range(1, 40))


def test_too_few_numbers_of_clients_give_no_law() -> None:
    fits = concurrency_fits(concurrency_throughput(rows(0.1, 0.0, clients=(1, 2, 4))))
    assert fits.filter(pl.col("throughput_law") == "universal_scalability")["contention"].to_list() == [None]
    assert fits.filter(pl.col("throughput_law") == "amdahl")["contention"].to_list() == [pytest.approx(0.1)]


def test_a_group_that_lost_a_call_is_counted_and_left_out() -> None:
    all_rows = rows(0.1, 0.0)
    lost = all_rows.with_row_index().filter(pl.col("index") != all_rows.height - 1).drop("index")
    last = concurrency_throughput(lost).row(-1, named=True)
    assert (last["concurrency"], last["n_groups"], last["n_groups_with_failures"]) == (16, 1, 1)


def test_one_number_of_clients_is_no_sweep() -> None:
    assert concurrency_throughput(rows(0.1, 0.0, clients=(1,))).is_empty()
    assert concurrency_fits(concurrency_throughput(rows(0.1, 0.0, clients=(1,)))).is_empty()


@pytest.mark.parametrize(
    ("slots", "served"), [(1, {1: 1, 2: 1, 4: 1}), (2, {1: 1, 2: 2, 4: 2}), (4, {1: 1, 2: 2, 4: 4})]
)
def test_how_many_a_server_serves_at_once_is_told_by_who_waits_for_a_request(slots: int, served) -> None:
    lone_ttft_ms, request_ms = 160.0, 700.0
    waits = [
        row_of(
            "kv_decode", 1.0, backend="served", backend_kind="ollama", gen_tokens_target=50, gen_tokens_raw=50,
            concurrency=clients, rep=rep, sent_at_ms=1e6 * rep, client_e2e_ms=request_ms * (client // slots + 1),
            ttft_ms=lone_ttft_ms + 30.0 * client + request_ms * (client // slots), request_ms=request_ms,
        )
        for clients in served
        for rep in range(3)
        for client in range(clients)
    ]  # fmt: skip
    table = concurrency_throughput(table_of(waits))
    assert dict(table.select("concurrency", "served_at_once").iter_rows()) == served


def test_without_a_lone_request_it_is_not_known_how_many_are_served_at_once() -> None:
    several = rows(0.1, 0.0, clients=(2, 4))
    assert concurrency_throughput(several)["served_at_once"].to_list() == [None, None]


@pytest.mark.parametrize(
    ("waits", "failed", "expected"),
    [
        ([120, 1326], [0, 0], (1, 2)), ([120, 900, 950], [0, 0, 0], (4, None)), ([1326, 120], [0, 0], (None, 1)),
        ([120, 1326, 120], [0, 0, 0], (1, 2)), ([120, 120], [0, 1], (1, 2)), ([], [], (None, None)),
    ],
)  # fmt: skip
def test_users_within_a_limit_are_the_most_clients_before_the_first_who_wait_longer(
    waits: list, failed: list, expected: tuple
) -> None:
    cells = [
        {"concurrency": 2**at, "ttft_ms_p95": wait, "step_ms_p95": 40.0, "n_groups_with_failures": failed[at]}
        for at, wait in enumerate(waits)
    ]
    assert tuple(cell and cell["concurrency"] for cell in users_within(cells, (1000.0, 50.0))) == expected
    assert users_within(cells, (1e9, 30.0))[0] is None


def test_groups_of_pooled_runs_are_groups_of_their_own() -> None:
    one = rows(0.1, 0.0)
    pooled = pl.concat([one.with_columns(run=pl.lit(name)) for name in ("a", "b")])
    table = concurrency_throughput(pooled)
    assert table["n_groups"].to_list() == [4] * 5
    same = concurrency_throughput(one)["output_tokens_per_s_median"].to_list()
    assert table["output_tokens_per_s_median"].to_list() == pytest.approx(same)


def test_clients_whose_every_call_failed_are_no_clients_within_a_limit() -> None:
    lost = pl.col("concurrency") >= 8
    failed = rows(0.1, 0.0).with_columns(
        pl.when(~lost).then(pl.col("sent_at_ms", "client_e2e_ms", "ttft_ms", "gen_tokens_raw")),
        status=pl.when(lost).then(pl.lit("error")).otherwise(pl.lit("ok")),
        decode_step_ms=pl.lit(1.0),
    )
    table = concurrency_throughput(failed)
    assert table.select("concurrency", "n_groups", "n_groups_with_failures").rows()[2:] == [
        (4, 2, 0),
        (8, 0, 2),
        (16, 0, 2),
    ]
    assert table["output_tokens_per_s_median"].to_list()[3:] == [None, None]
    most, beyond = users_within(table.rows(named=True), (1000.0, 50.0))
    assert most and beyond and (most["concurrency"], beyond["concurrency"]) == (4, 8)
    assert concurrency_fits(table)["n"].to_list() == [3, 3]
