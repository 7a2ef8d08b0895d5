"""`python -m vitrepro` and the `vitrepro` command."""

from __future__ import annotations

import os


def main() -> None:
    # pydantic looks through every installed package for plugins at import, a tenth of `list-claims`; we use none
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from vitrepro.cli import run

    run()


if __name__ == "__main__":
    main()
