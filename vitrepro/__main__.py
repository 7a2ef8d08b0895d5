"""`python -m vitrepro` and the `vitrepro` command."""

from __future__ import annotations

import os
import sys


def main() -> None:
    # pydantic looks through every installed package for plugins at import, a tenth of `list-claims`; we use none
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        from vitrepro.cli import run

        run()
    except KeyboardInterrupt:  # while modules were loading
        print("Interrupted. Run the same command again to go on.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
