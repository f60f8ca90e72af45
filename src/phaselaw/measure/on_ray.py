"""A run over many hosts: Ray starts the replicates' processes there, and this process alone keeps what they send.

What Ray runs on a host is one actor, which holds all its processors and GPUs until the run ends: no other task of the
cluster runs beside it. It is the parent of a replicate's process (`phaselaw.measure.replicates`), and passes on each
event when it is asked for the next one: when the event before is on the disk here. Where the actor, its host or that
process is lost, what was measured of the replicate is abandoned, and all of it is measured anew on a host of the kind.
"""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import chain
from typing import Any

import psutil

from phaselaw import __version__
from phaselaw.engines.hf import weights_bytes
from phaselaw.engines.permits import KEY_HOSTS, PROGRAMS, TYPED_HOSTS
from phaselaw.errors import MissingExtraError, NotReadyError, RunError, UsageError
from phaselaw.machine import identity
from phaselaw.measure import begin
from phaselaw.measure.order import schedule
from phaselaw.measure.replicates import LostProcessError, Measured, ShouldStop, in_a_fresh_process
from phaselaw.records import Abandoned, Call, Event, PlannedCall
from phaselaw.rundir.write import RunDirectory
from phaselaw.study.model import HfBackend, Study

HERE = "local"
"""The address of a cluster of this machine alone, which is started for the run."""
LONGEST_LOOK_S = 300.0
"""How long hosts may take to say what they are."""

_ALWAYS = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
_OF_OUR_NODE = {"RAY_worker_niceness": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Calls at full priority; and, whatever the second one's name says, all servers of the node on 127.0.0.1 alone."""

Share = tuple[int, str]
"""A replicate on one backend: it is measured on one host."""


class _Worker:
    """The actor of a host: the parent of the processes that measure there."""

    def __init__(self, allowed: Mapping[str, str]) -> None:
        os.environ.update(allowed)
        started_by = psutil.Process(os.getppid())
        # What Ray sets for its workers would be measured: threads, and a low priority where we may raise it again.
        if "OMP_NUM_THREADS" not in started_by.environ():
            os.environ.pop("OMP_NUM_THREADS", None)
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, started_by.nice())

    def look(self, study: dict[str, Any]) -> tuple[dict[str, Any], list[begin.Lack], list[str]]:
        """What this host is, what it lacks, and what is to be told of it; what it does not lack is built."""
        asked, told = Study.model_validate(study), list[str]()
        lacking = begin.lacks(asked)
        with suppress(NotReadyError):
            list(begin.prepare_models(begin.runnable_part(asked, lacking)))
        if os.getpriority(os.PRIO_PROCESS, 0) > 0:
            told.append("calls run at a low priority; start its node with RAY_worker_niceness=0")
        facts = {"machine_id": identity.machine_id(), "ray_auth_mode": os.environ.get("RAY_AUTH_MODE")}
        facts |= begin.host_of(begin.begin_quietly(asked, wait_s=None, tell=lambda _: None), tell=told.append)
        return facts | {"too_small_for": too_small_for(asked, facts)}, lacking, told

    def begin(self, study: dict[str, Any], wait_s: float | None, which: dict[str, Any]) -> None:
        """Be ready to measure a part of a study, as `replicates.measure` has it."""
        self._study, self._wait_s, self._stop = Study.model_validate(study), wait_s, False
        planned = (call for call in schedule(self._study) if call.cell.backend in which["backends"])
        mine = (call for call in planned if call.replicate == which["replicate"] and call.call_id not in which["done"])
        self._left, self._round_is_over = Counter(map(self._round, mine)), True
        self._events = in_a_fresh_process(self._study, lambda: self._stop, **which)

    def next(self, stop: bool) -> tuple[Event | None, list[str]]:
        """The next event, with what is to be told; the last one is kept, and there are to be no more for ``stop``."""
        self._stop, told = stop, list[str]()
        if self._round_is_over and not stop:
            begin.begin_quietly(self._study, wait_s=self._wait_s, tell=told.append)
        event, self._round_is_over = next(self._events, None), False
        if isinstance(event, Call):
            self._left[self._round(event)] -= 1
            self._round_is_over = not self._left[self._round(event)]
        return event, told

    def _round(self, call: PlannedCall) -> object:
        """What is measured between two looks at the host's load: a round, or where there are none, a cell."""
        return (call.warmup_idx, call.rep) if self._study.order == "rounds" else call.cell.key


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Host:
    """A host that measures for this run."""

    name: str
    actor: Any
    facts: Mapping[str, Any]
    """What stands of it in the manifest."""
    lacking: Sequence[begin.Lack]

    def lacks(self, study: Study, backend: str) -> list[begin.Lack]:
        """What it lacks for a backend of a study."""
        models = {None, *(model.name for model in study.models_of(backend))}
        return [each for each in self.lacking if each.backend == backend and each.model in models and not each.doubt]


def too_small_for(study: Study, host: Mapping[str, Any]) -> list[str]:
    """The backends of a study of which a model's weights alone are more than the memory of their device on a host."""
    gpus = identity.gpus_of({"host": host})
    found = []
    for backend in (each for each in study.backends if isinstance(each, HfBackend)):
        kind, _, index = backend.device.partition(":")
        at = int(index or 0)
        has = host.get("memory_bytes") if kind == "cpu" else (gpus[at][1] or 0.0) * 2**20 if at < len(gpus) else None
        needs = max((weights_bytes(each.name, backend.dtype) for each in study.models_of(backend.name)), default=0.0)
        if has and needs > has:
            found.append(backend.name)
    return found


def connected(address: str) -> Any:
    """Ray, connected to a cluster, or to one of this machine that is started (`HERE`); raises `NotReadyError`."""
    if not re.fullmatch(r"local|auto|[^/\s]+:[0-9]+", address):
        raise UsageError(f"--ray {address}: give HOST:PORT, auto or nothing; the study stands before it")
    for name, value in (_ALWAYS | (_OF_OUR_NODE if address == HERE else {})).items():
        os.environ.setdefault(name, value)  # read when ray is imported
    try:
        ray: Any = import_module("ray")
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except ImportError:
        raise MissingExtraError("ray", "--ray") from None
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise NotReadyError(f"--ray {address}: no cluster to use there: {_line(error)}") from None
    return ray


class Hosts:
    """The hosts of a Ray cluster, held for one run."""

    def __init__(
        self, address: str, *, label: str | None, share_machine: bool, wait_s: float | None, tell: begin.Tell
    ) -> None:
        self._ray = connected(address)
        self._tell, self._share_machine, self._wait_s, self._label = tell, share_machine, wait_s, label
        self._hosts: list[Host] = []
        self.close: Callable[[], None] = self._ray.shutdown

    def look(self, study: Study) -> list[begin.Lack]:
        """Take all hosts that can measure together; what of a study none of them can run. Raises `NotReadyError`."""
        asked = dict(self._asked(study))
        ready, late = self._ray.wait(list(asked), num_returns=len(asked), timeout=LONGEST_LOOK_S) if asked else ([], [])
        for ref in late:
            self._tell(f"{asked[ref][0]} is held by other tasks; it is left out")
        seen = {ref: self._ray.get(ref) for ref in ready}
        machines = Counter(facts["machine_id"] for facts, _, _ in seen.values())
        for ref, (facts, lacking, told) in seen.items():
            name, actor = asked[ref]
            shared = {"shared_machine": True} if machines[facts["machine_id"]] > 1 else {}
            self._hosts.append(Host(name=name, actor=actor, facts={"name": name} | shared | facts, lacking=lacking))
            for line in told:
                self._tell(f"{name}: {line}")
        self._refuse()
        least = (min((host.lacks(study, each.name) for host in self._hosts), key=len) for each in study.backends)
        return list(chain.from_iterable(least))

    def _asked(self, study: Study) -> Iterator[tuple[Any, tuple[str, Any]]]:
        """Have each node say what it is: the answer to come, the host's name, its actor."""
        on_node = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        key, _, value = (self._label or "").partition("=")
        allowed = {name: os.environ[name] for name in (KEY_HOSTS, TYPED_HOSTS, PROGRAMS) if name in os.environ}
        names = Counter[str]()
        for node in sorted(self._ray.nodes(), key=lambda each: (each["NodeName"], each["NodeID"])):
            has = node["Resources"]
            if not node["Alive"] or has.get("CPU", 0) < 1 or (key and node["Labels"].get(key) != value):
                continue
            name = node["NodeName"] if node["NodeName"] != node["NodeManagerAddress"] else node["NodeManagerHostname"]
            name = re.sub(r"[^A-Za-z0-9_-]+", "-", name)  # it names a folder too
            names[name] += 1
            whole: dict[str, Any] = {"num_cpus": has["CPU"], "num_gpus": has.get("GPU", 0)}
            worker = self._ray.remote(_Worker).options(scheduling_strategy=on_node(node["NodeID"], soft=False), **whole)
            actor = worker.remote(allowed)
            yield actor.look.remote(study.resolved()), (name + f".{names[name]}" * (names[name] > 1), actor)

    def _refuse(self) -> None:
        if not self._hosts:
            raise NotReadyError(f"--ray: no node {self._label or ''} with a processor to measure on (see ray status)")
        shared = [host.name for host in self._hosts if "shared_machine" in host.facts]
        if shared and not self._share_machine:
            more = "their calls would disturb each other; --share-machine measures all the same, and rows say so"
            raise NotReadyError(f"{', '.join(shared)} are nodes of one machine: {more}")
        for host in self._hosts:
            if (version := host.facts["libraries"].get("phaselaw")) != __version__:
                raise NotReadyError(f"{host.name} has phaselaw {version}, this is {__version__}")
            if host.facts["ray_auth_mode"] != os.environ["RAY_AUTH_MODE"]:
                raise NotReadyError(f"{host.name} takes anybody's tasks; start its node with RAY_AUTH_MODE=token")

    def measure(self, directory: RunDirectory, should_stop: ShouldStop) -> Measured:
        """As `replicates.measure_run`, on these hosts."""
        if any(getattr(backend, "fresh_process", False) for backend in directory.study.backends):
            raise UsageError("--ray measures a replicate by one process: leave fresh_process away, or run without it")
        if not self._hosts:
            self.look(directory.study)
        work = Work(directory, self._hosts)
        gone = work.leave_gone_hosts()
        todo = work.todo()
        return todo, directory.study.calls_planned() - len(todo), self._events(work, gone, should_stop)

    def _events(self, work: "Work", gone: list[Event], should_stop: ShouldStop) -> Generator[Event]:
        yield from gone
        study, running = work.directory.study.resolved(), dict[Any, tuple[Host, list[Share], int]]()
        while True:
            busy = [host for host, *_ in running.values()]
            for host in (each for each in work.alive.values() if each not in busy and not should_stop()):
                if shares := work.shares_for(host):
                    which = work.begin(host, shares)
                    host.actor.begin.remote(study, self._wait_s, which)
                    running[host.actor.next.remote(False)] = host, shares, which["process_idx"]
            if not running:
                return None if should_stop() else work.refuse_rest()
            for ref in self._ray.wait(list(running), timeout=0.5)[0]:
                host, shares, process_idx = running.pop(ref)
                try:
                    event, told = self._ray.get(ref)
                except self._ray.exceptions.RayError as error:
                    yield work.lost(host, shares, process_idx, error)
                    continue
                for line in told:
                    self._tell(f"{host.name}: {line}")
                if event is not None:
                    event = work.keep(event)
                    running[host.actor.next.remote(should_stop())] = host, shares, process_idx
                    yield event


class Work:
    """What is left to measure of a run, and who may measure it."""

    def __init__(self, directory: RunDirectory, hosts: Sequence[Host]) -> None:
        self.directory, self.alive = directory, {host.name: host for host in hosts}
        self._planned, self._taken = schedule(directory.study), set[Share]()
        self._kinds: dict[Share, Mapping[str, Any]] = {}
        """The hosts that shares were lost with."""
        able: dict[frozenset[str], list[str]] = {}
        for backend in directory.study.backends:
            here = [host for host in hosts if not host.lacks(directory.study, backend.name)]
            # Where no host has the memory, all may try: what does not load is out of memory, as on one machine.
            roomy = [host for host in here if backend.name not in host.facts.get("too_small_for", ())]
            able.setdefault(frozenset(host.name for host in roomy or here), []).append(backend.name)
        self._together = list(able.items())
        """Backends that the same hosts can run: they are measured together, in the order of the study."""

    def todo(self) -> list[PlannedCall]:
        """The calls that are to be made."""
        return [call for call in self._planned if call.call_id not in self.directory.done]

    def _begun(self) -> dict[Share, str]:
        """The shares that were begun and are not whole, with the names of their hosts."""
        left = {_share(call) for call in self.todo()}
        names = {_share(call): str(self.directory.hosts[call.process_idx].get("name")) for call in self.directory.calls}
        return {share: name for share, name in names.items() if share in left}

    def shares_for(self, host: Host) -> list[Share]:
        """What a host is to measure next; nothing where there is nothing for it."""
        begun, left = self._begun(), {_share(call) for call in self.todo()} - self._taken
        for replicate in range(self.directory.study.replicates if left else 0):
            for names, backends in self._together:
                shares = [(replicate, name) for name in backends if host.name in names and (replicate, name) in left]
                mine = [share for share in shares if begun.get(share, host.name) == host.name]
                kinds = (self._kinds.get(share, host.facts) for share in mine)
                if mine and not any(identity.host_differences(kind, host.facts) for kind in kinds):
                    return mine
        return []

    def begin(self, host: Host, shares: list[Share]) -> dict[str, Any]:
        """Begin the process of a host: what it is to measure."""
        self._taken.update(shares)
        which = {"replicate": shares[0][0], "backends": [name for _, name in shares], "done": self.directory.done}
        return {"process_idx": self.directory.begin_next_process(host.facts), **which}

    def keep(self, event: Event) -> Event:
        """Keep an event of a host; calls are counted in the order that they come in."""
        if isinstance(event, Call):
            event = dataclasses.replace(event, call_idx=self.directory.next_call_idx)
        self.directory.append(event)
        return event

    def lost(self, host: Host, shares: list[Share], process_idx: int, error: Any) -> Event:
        """A host is lost with its process; `RunError` where it is there and refuses."""
        cause = getattr(error, "cause", None)
        if cause is not None and not isinstance(cause, LostProcessError):
            raise RunError(f"{host.name}: {_line(cause)}")
        del self.alive[host.name]
        self._taken.difference_update(shares)
        self._kinds |= dict.fromkeys(shares, host.facts)
        return self._abandon(shares, f"{host.name} was lost ({_line(cause or error)})", process_idx)

    def leave_gone_hosts(self) -> list[Event]:
        """Abandon what was begun on hosts that are not here."""
        gone = {share: name for share, name in self._begun().items() if name not in self.alive}
        why = f"the cluster has no {', '.join(sorted({*gone.values()}))} any more"
        return [self._abandon(gone, why)] if gone else []

    def _abandon(self, shares: Collection[Share], why: str, *more: int) -> Event:
        processes = {call.process_idx for call in self.directory.calls if _share(call) in shares}.union(more)
        mine = [call for call in self.directory.calls if call.process_idx in processes]
        self._kinds |= {_share(call): self.directory.hosts[call.process_idx] for call in mine}
        return self.keep(Abandoned(processes=tuple(sorted(processes)), why=why))

    def refuse_rest(self) -> None:
        """Raise `RunError` where something is left, which no host can measure."""
        for share in sorted({_share(call) for call in self.todo()} - self._taken):
            of = "of the kind that it was begun on" if share in self._kinds else "that can run it"
            raise RunError(f"replicate {share[0]} of {share[1]} needs a host {of}; none is left; go on with --resume")


def _share(call: PlannedCall) -> Share:
    return call.replicate, call.cell.backend


def _line(error: Any) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
