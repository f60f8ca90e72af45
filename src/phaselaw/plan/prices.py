"""Price lists of rented accelerators: a CSV, its offers brought to one accelerator's hour, and how old it is.

Lists differ in their columns, and their own per-accelerator figure can't be trusted (rows of several accelerators that
carry the machine's price there are common). So the price of an hour is the machine's over its accelerators; where only
a per-accelerator figure is given, that is taken, and the offer says so.
"""

import dataclasses
import datetime as dt
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median, median_high, median_low
from typing import Any

from phaselaw.errors import UsageError
from phaselaw.plan.inputs import CURRENCIES, currency_in, money, read_table

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
    "currency": ("currency",),
}
"""What a column may be called, in lower case; a currency may stand behind it, as in ``price per hour (EUR)``."""
OUTLIER = 3.0
"""A price so many times the median of its accelerator, or the median so many times the price, is in doubt; of an even
number of offers both in the middle are its median."""


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
    currency: str = "USD"

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
    taken: str
    """Which of them: their median, the lower of the two in the middle, or the lowest of the provider that was named."""
    age_days: int | None
    """``None`` where the list has no date."""

    @property
    def stale(self) -> bool | None:
        """Whether the list is too old to plan with; ``None`` where its age is not known."""
        return None if self.age_days is None else self.age_days > STALE_DAYS

    def document(self) -> dict[str, Any]:
        """The offer that the price is from, for the JSON."""
        offer, own = self.offer, ("provider", "machine", "accelerator", "doubt", "currency")
        among = ("offers", "lowest", "median", "highest", "age_days", "stale", "taken")
        found = {name: getattr(offer, name) for name in own} | {name: getattr(self, name) for name in among}
        found |= {"accelerators_in_machine": offer.accelerators, "usd_per_accelerator_hour": offer.usd_per_hour}
        return found | {"date": offer.dated and offer.dated.isoformat()}

    def notes(self) -> Iterator[str]:
        """What to know of it: which it is, how it lies among the others, and its age."""
        offer, mark = self.offer, CURRENCIES[self.offer.currency]
        yield (
            f"price: {offer}, {mark}{offer.usd_per_hour:.2f} an accelerator's hour; lowest to highest of {self.offers} "
            f"offers of {', '.join(self.kinds)}: {mark}{self.lowest:.2f} to {mark}{self.highest:.2f}, median "
            f"{mark}{self.median:.2f}"
        )
        if offer.doubt is not None:
            yield f"price: in doubt, since {offer.doubt}"
        if self.age_days is None:
            yield "price: the list has no date, so that its age is not known: give --prices-date"
        elif self.age_days < 0:
            yield f"price: dated {offer.dated}, a day that is to come: look at the list's dates"
        elif self.stale:
            yield f"price: stale, {self.age_days} days old (older than {STALE_DAYS}): look it up again"


def read_offers(path: Path, *, kind: str = "on-demand", dated: dt.date | None = None) -> tuple[list[Offer], list[str]]:
    """Every offer of a list that has a price of a ``kind`` (``on-demand`` or ``spot``), with its doubts; and the places
    of the rows whose price can't be read.

    ``dated`` serves where the rows have no date. Raises `UsageError` where the list has no accelerators or no prices.
    """
    table = read_table(path, ())
    header = {re.sub(r"\W*\b(usd|eur|gbp)\W*$|\s*[($€£)]+$", "", name): name for name in (table[0][1] if table else ())}
    header |= {name: name for name in header.values()}
    names = {meaning: next((header[n] for n in known if n in header), None) for meaning, known in _NAMES.items()}
    if names["accelerator"] is None or (names[kind] is None and (kind == "spot" or names["each"] is None)):
        raise UsageError(
            f"{path}:1: no price list: it needs a column for the accelerator ({', '.join(_NAMES['accelerator'])}) "
            f"and one for the price ({', '.join(_NAMES[kind])})"
        )
    offers, unread = [], []
    for where, cells in table:
        row = {meaning: cells.get(name, "") if name else "" for meaning, name in names.items()}
        prices = {meaning: money(row[meaning])[0] for meaning in (kind, "each") if row[meaning]}
        unknown = row["currency"] and currency_in(row["currency"]) is None
        if unknown or not all(usd >= 0 for usd in prices.values()):
            unread.append(where)
            continue
        stated, memory = _number(row["count"]) or 1.0, _number(row["memory"])
        share = min(stated, 1.0)  # of one accelerator that is rented in parts
        if stated >= 1e6 or (stated > 1 and not stated.is_integer()):
            raise UsageError(f"{where}: {row['count'][:40]!r} accelerators; give the whole number that the machine has")
        count, machine = max(1, int(stated)), prices.get(kind)
        each = prices.get("each") if kind == "on-demand" else None
        doubt = f"it rents {share:g} of an accelerator" if share < 1 else None
        if machine is None:
            usd, doubt = each, "no price of the whole machine to check it by" if count > 1 else doubt
        else:
            usd = machine / (count * share)
            if each is not None and abs(each - usd) > 0.05 * usd:
                doubt = f"the list's own price per accelerator is {each:g}"
        if not usd:
            continue
        said = (row["currency"], row[kind], row["each"], names[kind] or "", names["each"] or "")
        offer = Offer(
            provider=row["provider"],
            machine=row["name"],
            accelerator=row["accelerator"],
            memory_gb=_memory(row["accelerator"]) or (None if memory is None else memory / count),
            accelerators=count,
            usd_per_hour=usd,
            dated=read_date(row["date"], where) if row["date"] else dated,
            doubt=doubt,
            currency=next(filter(None, map(currency_in, said)), "USD"),
        )
        offers.append(offer)
    return offers, unread


def choose(
    offers: Sequence[Offer], accelerator: str, *, provider: str | None, accelerators: int, today: dt.date
) -> Choice:
    """The median price of an accelerator (``A100``, ``A100 80GB``), or a provider's lowest; none with a doubt, unless
    all have one. Of an even number the lower of the two in the middle: a price that somebody asks for.

    Raises `UsageError` where the list has none, naming what it has, or has it in several currencies.
    """
    known = [offer for offer in offers if _is(offer, accelerator)]
    if not known:
        names = ", ".join(sorted({offer.accelerator for offer in offers}))
        raise UsageError(f"--accelerator {accelerator}: not in the price list; it has: {names}")
    fitting = [offer for offer in known if provider is None or offer.provider.lower() == provider.lower()]
    if not fitting:
        names = ", ".join(sorted({offer.provider for offer in known}))
        raise UsageError(f"--provider {provider}: offers no {accelerator}; these do: {names}")
    if len(currencies := sorted({offer.currency for offer in fitting})) > 1:
        raise UsageError(f"--accelerator {accelerator}: prices in {' and '.join(currencies)}; choose a --provider")
    usual = sorted(offer.usd_per_hour for offer in known if offer.currency == currencies[0])
    low, high, best = median_low(usual), median_high(usual), []
    for offer in fitting:
        far = not high / OUTLIER <= offer.usd_per_hour <= low * OUTLIER
        middle = f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"
        why = offer.doubt or (f"the median of its accelerator is {middle}" if far else None)
        best.append(dataclasses.replace(offer, doubt=why))
    best.sort(key=lambda offer: (bool(offer.doubt), offer.usd_per_hour))
    sure = sum(not offer.doubt for offer in best) or len(best)
    offer = best[0 if provider else (sure - 1) // 2]
    prices = [offer.usd_per_hour for offer in fitting]
    return Choice(
        offer=offer,
        usd_per_hour=offer.usd_per_hour * accelerators,
        offers=len(fitting),
        lowest=min(prices),
        median=median(prices),
        highest=max(prices),
        kinds=tuple(sorted({offer.accelerator for offer in fitting})),
        taken="the provider's lowest" if provider else "median" if sure % 2 else "lower median",
        age_days=None if offer.dated is None else (today - offer.dated).days,
    )


def is_named(asked: str, name: str) -> bool:
    """Whether every word that was asked for, sizes in GB apart, is in an accelerator's name, as one word or two."""
    words, known = (
        re.findall(r"[a-z0-9.]+", re.sub(r"\d+\s*GB", " ", text, flags=re.I).lower()) for text in (asked, name)
    )
    return set(words) <= {*known, *map("".join, pairwise(known))} or "".join(words) in known


def _is(offer: Offer, asked: str) -> bool:
    """Whether an accelerator is the one that was asked for; a size in GB must be its memory."""
    memory = _memory(asked)
    fits = memory is None or (offer.memory_gb is not None and abs(offer.memory_gb - memory) < 0.5)
    return fits and bool(asked.strip()) and is_named(asked, offer.accelerator)


def _memory(text: str) -> float | None:
    found = re.search(r"(\d+(?:\.\d+)?)\s*GB", text, flags=re.IGNORECASE)
    return float(found[1]) if found else None


def _number(text: str) -> float | None:
    """A count or a size: ``8``, ``640GB``."""
    found = re.match(r"\s*(\d+(?:\.\d+)?)", text.replace(",", ""))
    return float(found[1]) if found else None


def read_date(text: str, where: str) -> dt.date:
    """A day as ``YYYY-MM-DD``; raises `UsageError` naming its place."""
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{where}: {text!r} is no day; write YYYY-MM-DD") from None
