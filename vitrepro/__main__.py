"""`python -m vitrepro` and the `vitrepro` command."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    # pydantic looks through every installed package for plugins at import; we use none and start sooner
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(100_000)  # loading makes many objects and little garbage to look for
    try:
        from vitrepro.cli import run

        run()
    except KeyboardInterrupt:  # while modules were loading
        print("Interrupted. Run the same command again to go on.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
