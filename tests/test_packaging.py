"""What is shipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def listed(folder: Path, site: Path) -> dict[str, str]:
    """Claim id -> hash, as a vitrepro from `site` lists them in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "vitrepro", "list-claims", "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["problems"] == []
    return {claim["id"]: claim["hash"] for claim in document["claims"]}


def test_a_wheel_outside_the_checkout_lists_the_same_claims(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    assert (site / "vitrepro" / "_claims" / "groups.yaml").is_file()
    assert listed(elsewhere, site) == listed(elsewhere, ROOT) != {}
