"""What has changed in a claim since it was judged, in sentences: a margin moved after a run does not stay unseen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vitrepro.spec import Cell, Claim, Reported, Scale
from vitrepro.store import VerdictEntry


def claim_changes(entry: VerdictEntry, claim: Claim, scale: Scale) -> Iterator[str]:
    """Where what is expected or reported now differs from every time the claim was judged."""
    now = _said(scale, claim.reported)
    found = [sentence(*d) for d in differences(_said(entry.entry, entry.reported), now)]
    yield from found
    if not found and claim.hash != entry.claim_hash:
        yield "the claim file changed, but neither what is expected at this scale nor what is reported"
    yield from earlier_changes(entry, claim, scale)


def cell_changes(entry: VerdictEntry, cells: Mapping[str, Cell]) -> Iterator[str]:
    """Where the printed numbers that a literal verdict rests on are others now."""
    if entry.cells:
        was, now = ({a: c.model_dump(mode="json") for a, c in some.items()} for some in (entry.cells, cells))
        yield from (sentence(*d) for d in differences(was, now))


def earlier_changes(entry: VerdictEntry, claim: Claim, scale: Scale) -> Iterator[str]:
    """The same for the times before the last one."""
    now = _said(scale, claim.reported)
    for earlier in entry.earlier:
        found = [sentence(*d) for d in differences(_said(earlier.entry, earlier.reported), now)]
        what = "; ".join(found) or "it read otherwise in between and reads again as it did then"
        yield f"since it was judged {earlier.outcome}, {earlier.judged_at}: {what}"


def differences(was: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Key path, old and new value of every leaf that differs; None where there is none."""
    if isinstance(was, dict) and isinstance(now, dict):  # what is equal as a whole has no leaf that differs
        equal = {key for key in was.keys() & now.keys() if was[key] == now[key]}
        was, now = ({k: v for k, v in some.items() if k not in equal} for some in (was, now))
    old, new = dict(_leaves(was)), dict(_leaves(now))
    for path in dict.fromkeys([*old, *new]):
        if old.get(path) != new.get(path):
            yield path, old.get(path), new.get(path)


def sentence(path: str, was: Any, now: Any) -> str:
    if was is None:
        return f"{path} was added: {_shown(now)}"
    if now is None:
        return f"{path} was removed; it was {_shown(was)}"
    return f"{path} changed from {_shown(was)} to {_shown(now)}"


def _said(scale: Scale, reported: Reported | None) -> dict[str, Any]:
    return {**scale.model_dump(mode="json"), "reported": reported and reported.model_dump(mode="json")}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Lists of plain values are leaves, lists of mappings are entered, None is nothing."""
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif value is not None:
        yield path, value


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(_shown(v) for v in value) or "nothing"
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)  # every digit, or two numbers that differ would look alike
