"""`python -m vitrepro` and the `vitrepro` command."""

from __future__ import annotations


def main() -> None:
    from vitrepro.cli import run

    run()


if __name__ == "__main__":
    main()
