"""A made-up source and small claims about it, for the tests of what is shown before anything runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from vitrepro.claims import Registry
from vitrepro.spec import Claim, Paper
from vitrepro.store import VerdictEntry

SOURCE = "journal:12"
PAPER = Paper.model_validate(
    {
        "paper": SOURCE,
        "title": "A paper",
        "framework": "It was made in JAX",
        "randomness": "Nothing is said of seeds.",
        "code": [
            {"repository": "lab/code", "by": "authors", "covers": ["training", "model"], "framework": "JAX"},
            {"repository": "other/port", "by": "others", "covers": ["training", "evaluation"], "framework": "PyTorch"},
            {"repository": "third/probe", "by": "others", "covers": ["analysis"], "framework": "NumPy"},
        ],
        "data": {
            "flowers": {"title": "Flowers-102", "access": "public", "note": "All are resized."},
            "secret": {"title": "The large set", "access": "private"},
        },
        "weights": {
            "small": {"title": "the small model", "names": ["small.v1", "small.v2"]},
            "large": {"title": "the large model"},
        },
        "differences": {"decay": {"text": "It is 0.1.", "code": "0.1 times the rate."}},
    }
)


def claim(claim_id: str = "j/one", **change: Any) -> Claim:
    """An ordering that nothing here can check, unless said otherwise."""
    plain = {
        "id": claim_id,
        "source": {"paper": SOURCE, "where": "Table 1"},
        "kind": "ordering",
        "statement": "One is better than the other.",
        "scales": {"paper": {"infeasible": "the data is private"}},
    }
    return Claim.model_validate(plain | change)


def value(claim_id: str, cells: dict[str, Any], **change: Any) -> Claim:
    """A claim that reports accuracies in percent."""
    reported = {"unit": "% top-1", "cells": cells} | change.pop("reported", {})
    return claim(claim_id, **{"kind": "value", "reported": reported} | change)


def literal(claim_id: str = "j/literal", **change: Any) -> Claim:
    """One printed number above another, and nothing to run."""
    reported = {"unit": "% top-1", "decimals": 1, "cells": {"a": 90.0, "b": 80.0}}
    expect = {"checks": {"above": {"that": "@a > @b"}}}
    return claim(claim_id, **{"reported": reported, "scales": {"literal": {"expect": expect}}} | change)


def registry(*claims: Claim, **more: Any) -> Registry:
    """Those claims and their source."""
    parts = {"experiments": {}, "groups": {}, "files": {}, "papers": {SOURCE: PAPER}} | more
    return Registry({c.id: c for c in claims}, **parts)


def entry(of: Claim, scale: str = "paper", outcome: str = "PASS", **change: Any) -> VerdictEntry:
    """A stored verdict on a claim as it reads now."""
    fields: dict[str, Any] = {
        "claim_id": of.id,
        "claim_hash": of.hash,
        "scale": scale,
        "entry": of.scales.entries()[scale],
        "reported": of.reported,
        "runs": (),
        "registered_seeds": 1,
        "deviations": (),
        "outcome": outcome,
        "reason": "so it came out",
        "judged_at": "2026-01-02T03:04:05+00:00",
    }
    return VerdictEntry(**fields | change)


def printed(show: Callable[[Console], None], width: int = 400) -> str:
    """What a function prints to a console this wide."""
    out = Console(file=io.StringIO(), width=width, highlight=False)
    show(out)
    return out.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def lines(text: str) -> list[str]:
    """Lines with runs of spaces folded, so that a row of a table reads `a b c`."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]
