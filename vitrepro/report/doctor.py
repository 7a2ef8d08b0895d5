"""What this machine can do."""

from __future__ import annotations

import os
import shutil
from typing import Any

from vitrepro import __version__, provenance
from vitrepro.catalog import DATASETS
from vitrepro.data.locate import locate
from vitrepro.store import Places

VARIABLES = ("VITREPRO_STORE", "VITREPRO_DATA", "VITREPRO_CACHE", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "NO_COLOR")


def examine(places: Places) -> dict[str, Any]:
    """Facts by name: versions, devices with their precision, data sets, free disk, environment variables."""
    from vitrepro.distributed import device_name, devices, resolve_precision

    found = devices("auto")
    free = shutil.disk_usage(
        next(p for p in (places.store.root.absolute(), *places.store.root.absolute().parents) if p.exists())
    )
    return {
        "vitrepro": __version__,
        "git revision": provenance.git_revision() or "not a checkout",
        "packages": provenance.versions(),
        "devices": {d: device_name(d) for d in dict.fromkeys(found)},
        "slots": len(found),
        "precision auto": resolve_precision("auto", found),
        "data sets": {name: locate(name, places.data_dir, places.cache_dir).kind for name in DATASETS},
        "data folder": str(places.data_dir or "none given (--data-dir or VITREPRO_DATA)"),
        "cache": str(places.cache_dir),
        "store": str(places.store.root),
        "free disk": f"{free.free / 1e9:.1f} GB",
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
