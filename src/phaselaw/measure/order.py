"""The order of a study's calls (method: TR121 2.5, and ours).

``cells`` shuffles the cells by the seed and runs each one's calls back to back; ``rounds`` runs every cell's warmups
first, then repetition r of every cell before r + 1 of any, shuffled anew in each round, so that a machine's drift
spreads over the cells instead of biasing one. Each replicate has both anew.
"""

import hashlib
import random
from collections.abc import Collection, Sequence
from itertools import chain

from phaselaw.records import Cell, PlannedCall
from phaselaw.study.model import Study

Task = tuple[int, Cell]
"""A cell, with its index in the study's seeded order."""
Turn = tuple[int, int | None, int | None]
"""In which replicate which warmup of a cell, or else which repetition."""


def schedule(study: Study) -> tuple[PlannedCall, ...]:
    """Every call of a study in the order to run it; the same study gives the same order, on any machine."""
    return tuple(chain.from_iterable(schedule_of(study, replicate) for replicate in range(study.replicates)))


def schedule_of(study: Study, replicate: int, grouped_backends: Collection[str] = ()) -> list[PlannedCall]:
    """The calls of one replicate.

    ``grouped_backends`` hold one model at a time: within a round their cells are shuffled by model, so that the weights
    stay loaded.
    """
    cells = list(study.cells())
    random.Random(f"{study.seed}/cells").shuffle(cells)
    tasks = list(enumerate(cells))
    seed = f"{study.seed}/replicate {replicate}" if replicate else f"{study.seed}"
    warmups: list[Turn] = [(replicate, index, None) for index in range(study.warmup_repetitions)]
    repetitions: list[Turn] = [(replicate, None, rep) for rep in range(study.repetitions)]
    if study.order == "cells":
        in_order = _shuffled(tasks, f"{seed}/cells", ()) if replicate else tasks
        turns = [(task, turn) for task in in_order for turn in warmups + repetitions]
    else:
        first = _shuffled(tasks, f"{seed}/warmups", grouped_backends)
        turns = [(task, warmup) for task in first for warmup in warmups]
        for rep, turn in enumerate(repetitions):
            order = _shuffled(tasks, f"{seed}/round {rep}", grouped_backends)
            turns += [(task, turn) for task in order]
    return [planned for task, turn in turns for planned in together_of(*task, turn)]


def _shuffled(tasks: Sequence[Task], seed: str, grouped_backends: Collection[str]) -> list[Task]:
    shuffled = list(tasks)
    random.Random(seed).shuffle(shuffled)
    # A group takes the place of its first member, and its members follow it in their shuffled order.
    groups: dict[tuple[str, ...], list[Task]] = {}
    for task_idx, cell in shuffled:
        group = (cell.backend, cell.model) if cell.backend in grouped_backends else (cell.key,)
        groups.setdefault(group, []).append((task_idx, cell))
    return list(chain.from_iterable(groups.values()))


def together_of(task_idx: int, cell: Cell, turn: Turn) -> list[PlannedCall]:
    """One turn of a cell: a call, or one by each of its clients at once."""
    replicate, warmup_idx, rep = turn
    # An id that depends on the cell alone, so that a call keeps its id when a study grows.
    of_cell = hashlib.sha256(cell.key.encode()).hexdigest()[:12]
    of_cell += f"-x{replicate}" if replicate else ""
    call_id = f"{of_cell}-r{rep}" if warmup_idx is None else f"{of_cell}-w{warmup_idx}"
    return [
        PlannedCall(
            call_id=f"{call_id}-c{client}" if cell.concurrency > 1 else call_id,
            cell=cell,
            task_idx=task_idx,
            is_warmup=warmup_idx is not None,
            warmup_idx=warmup_idx,
            rep=rep,
            client_idx=client,
            replicate=replicate,
        )
        for client in range(cell.concurrency)
    ]
