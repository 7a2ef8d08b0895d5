from __future__ import annotations

from pathlib import Path

import pytest
from fake_store import Lab, ordering, position_embeddings

from vitrepro.store import Store


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty store, one claim and its experiment."""
    made = Lab(Store(tmp_path / "store"))
    made.store.prepare()
    made.design(position_embeddings())
    made.say(ordering())
    return made


@pytest.fixture
def verified(lab: Lab) -> Lab:
    """The claim verified from three seeds: a PASS."""
    lab.verify("vit/t8-none-worse", {"none": [640, 650, 645], "learned-1d": [740, 745, 738]})
    return lab
