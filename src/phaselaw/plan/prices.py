"""Price lists of rented accelerators: a CSV, its offers brought to one accelerator's hour, and how old it is.

Lists differ in their columns, and their own per-accelerator figure can't be trusted (rows of several accelerators that
carry the machine's price there are common). So the price of an hour is the machine's over its accelerators; where only
a per-accelerator figure is given, that is taken, and the offer says so.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from phaselaw.errors import UsageError
from phaselaw.plan.inputs import read_table

STALE_DAYS = 90
"""A price list older than this is called stale."""

_NAMES = {
    "provider": ("cloud", "vendor", "provider"),
    "accelerator": ("gpu type", "accelerator", "gpu", "gpu name"),
    "count": ("gpus", "accelerators", "gpu count", "count"),
    "memory": ("gpu ram", "memory", "gpu memory"),
    "on-demand": ("on-demand", "per-hour", "on demand", "price per hour", "usd_per_hour"),
    "spot": ("spot",),
    "each": ("per-gpu", "per gpu", "per-accelerator"),
    "name": ("name", "instance", "machine"),
    "date": ("date", "as of", "as_of", "updated"),
}
"""What a column may be called, in lower case."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One accelerator's hour at one provider."""

    provider: str
    machine: str
    accelerator: str
    memory_gb: float | None
    """Of one accelerator."""
    accelerators: int
    """In the machine that is rented."""
    usd_per_hour: float
    """Of one accelerator."""
    dated: dt.date | None
    doubt: str | None
    """Why the price may be wrong; ``None`` where nothing speaks against it."""

    def __str__(self) -> str:
        machine = f" {self.machine}" if self.machine else ""
        return f"{self.provider}{machine} ({self.accelerators} x {self.accelerator})"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The offer that a plan goes by, among those of the accelerator."""

    offer: Offer
    usd_per_hour: float
    """Of a replica: its accelerators' hours."""
    offers: int
    lowest: float
    median: float
    highest: float
    kinds: tuple[str, ...]
    """The accelerators that were meant, as the list names them."""
    age_days: int | None
    """``None`` where the list has no date."""

    @property
    def stale(self) -> bool | None:
        """Whether the list is too old to plan with; ``None`` where its age is not known."""
        return None if self.age_days is None else self.age_days > STALE_DAYS


def read_offers(path: Path, *, kind: str = "on-demand", dated: dt.date | None = None) -> list[Offer]:
    """Every offer of a list that has a price of a ``kind`` (``on-demand`` or ``spot``), with its doubts.

    ``dated`` serves where the rows have no date. Raises `UsageError` where the list has no accelerators or no prices.
    """
    table = read_table(path, ())
    header = table[0][1].keys() if table else ()
    names = {meaning: next((n for n in known if n in header), None) for meaning, known in _NAMES.items()}
    if names["accelerator"] is None or (names[kind] is None and (kind == "spot" or names["each"] is None)):
        raise UsageError(
            f"{path}:1: no price list: it needs a column for the accelerator ({', '.join(_NAMES['accelerator'])}) "
            f"and one for the price ({', '.join(_NAMES[kind])})"
        )
    offers = []
    for where, cells in table:
        row = {meaning: cells.get(name, "") if name else "" for meaning, name in names.items()}
        count, machine, memory = (_number(row[meaning]) for meaning in ("count", kind, "memory"))
        share = count if count is not None and 0 < count < 1 else 1.0  # of one accelerator that is rented in parts
        if count is not None and (count >= 1e6 or (count > 1 and not count.is_integer())):
            raise UsageError(f"{where}: {row['count'][:40]!r} accelerators; give the whole number that the machine has")
        count = max(1, int(count or 1))
        each = _number(row["each"]) if kind == "on-demand" else None
        doubt = f"it rents {share:g} of an accelerator" if share < 1 else None
        if machine is None:
            usd, doubt = each, "no price of the whole machine to check it by" if count > 1 else doubt
        else:
            usd = machine / (count * share)
            if each is not None and abs(each - usd) > 0.05 * usd:
                doubt = f"the list's own price per accelerator is {each:g}"
        if not usd:
            continue
        offers.append(
            Offer(
                provider=row["provider"],
                machine=row["name"],
                accelerator=row["accelerator"],
                memory_gb=_memory(row["accelerator"]) or (None if memory is None else memory / count),
                accelerators=count,
                usd_per_hour=usd,
                dated=read_date(row["date"], where) if row["date"] else dated,
                doubt=doubt,
            )
        )
    return offers


def choose(
    offers: Sequence[Offer], accelerator: str, *, provider: str | None, accelerators: int, today: dt.date
) -> Choice:
    """The lowest price of an accelerator (``A100``, ``A100 80GB``), offers without doubts before all others.

    Raises `UsageError` where the list has none, naming what it has.
    """
    known = [offer for offer in offers if _is(offer, accelerator)]
    if not known:
        names = ", ".join(sorted({offer.accelerator for offer in offers}))
        raise UsageError(f"--accelerator {accelerator}: not in the price list; it has: {names}")
    fitting = [offer for offer in known if provider is None or offer.provider.lower() == provider.lower()]
    if not fitting:
        names = ", ".join(sorted({offer.provider for offer in known}))
        raise UsageError(f"--provider {provider}: offers no {accelerator}; these do: {names}")
    best = min(fitting, key=lambda offer: (offer.doubt is not None, offer.usd_per_hour))
    prices = [offer.usd_per_hour for offer in fitting]
    return Choice(
        offer=best,
        usd_per_hour=best.usd_per_hour * accelerators,
        offers=len(fitting),
        lowest=min(prices),
        median=median(prices),
        highest=max(prices),
        kinds=tuple(sorted({offer.accelerator for offer in fitting})),
        age_days=None if best.dated is None else (today - best.dated).days,
    )


def _is(offer: Offer, asked: str) -> bool:
    """Whether every word that was asked for is in the accelerator's name; a size in GB must be its memory."""
    memory = _memory(asked)
    words, name = (
        set(re.findall(r"[a-z0-9.]+", text.lower()))
        for text in (re.sub(r"\d+\s*GB", " ", asked, flags=re.IGNORECASE), offer.accelerator)
    )
    fits = memory is None or (offer.memory_gb is not None and abs(offer.memory_gb - memory) < 0.5)
    return fits and bool(words or memory) and words <= name


def _memory(text: str) -> float | None:
    found = re.search(r"(\d+(?:\.\d+)?)\s*GB", text, flags=re.IGNORECASE)
    return float(found[1]) if found else None


def _number(text: str) -> float | None:
    """A count, or dollars: ``8``, ``$1,024.50``, ``640GB``."""
    found = re.match(r"[\s$]*(\d+(?:\.\d+)?)", text.replace(",", ""))
    return float(found[1]) if found else None


def read_date(text: str, where: str) -> dt.date:
    """A day as ``YYYY-MM-DD``; raises `UsageError` naming its place."""
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{where}: {text!r} is no day; write YYYY-MM-DD") from None
