"""Randomness as a function of what it is for, so that a resumed run draws what it would have drawn."""

from __future__ import annotations

import hashlib


def derive(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for one purpose and one index (epoch, step) of a run.

    Neighbouring seeds, purposes and indices give unrelated results, unlike seed + index.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
