"""Claim files to start from: whole ones, on data that ships with a dependency, so that one changes what works."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from vitrepro import claims
from vitrepro.errors import UsageError, did_you_mean
from vitrepro.spec import ClaimId

FOLDER = Path(__file__).parent / "templates"
KINDS = ("ordering", "value", "trend", "equivalence", "exact", "cost", "qualitative", "literal")


def new_claim(directory: Path, claim_id: str, kind: str) -> list[Path]:
    """Write a claim of this kind and the experiment it needs, with comments.

    Args:
        directory: of claims; made if it is not there.
        kind: one of KINDS.

    Returns:
        The files: the claim's, then the experiment's, where one is run.

    Raises:
        UsageError: no such kind, no id of a claim, an id or a file that exists already, or no place to write.
    """
    if kind not in KINDS:
        raise UsageError(f"--kind {kind!r} is not one of {', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
    try:
        TypeAdapter(ClaimId).validate_python(claim_id)
    except ValidationError:
        raise UsageError(
            f"{claim_id!r} is no id of a claim: my-paper/my-claim, of lower-case letters, digits, '.', '_' and '-', "
            "at most 120 characters and no '--'"
        ) from None
    experiment_id = claim_id.replace("/", "-")[:80]
    texts = {"": (FOLDER / f"{kind}.yaml").read_text("utf-8")}
    with contextlib.suppress(FileNotFoundError):  # printed numbers are compared without an experiment
        texts["experiments"] = (FOLDER / "experiments" / f"{kind}.yaml").read_text("utf-8")
    files = {
        directory / folder / f"{experiment_id}.yaml": text.replace(f"example/{kind}", claim_id).replace(
            f"example-{kind}", experiment_id
        )
        for folder, text in texts.items()
    }
    _refuse_what_exists(directory, files, claim_id, experiment_id)
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from None
    return list(files)


def _refuse_what_exists(directory: Path, files: dict[Path, str], claim_id: str, experiment_id: str) -> None:
    existing = [path for path in files if path.exists()]
    if existing:
        raise UsageError(f"{existing[0]}: exists already, and nothing is overwritten; choose another id or directory")
    registry = claims.load([directory] if directory.is_dir() and any(directory.rglob("*.yaml")) else [])
    for what, name in (("claim", claim_id), ("experiment", experiment_id)):
        place = registry.places.get((what, name))
        if place is not None:
            raise UsageError(f"{what} {name!r} exists already, at {place.shown}; choose another id")
