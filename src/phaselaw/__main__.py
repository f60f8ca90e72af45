"""``python -m phaselaw`` is the command line."""

from phaselaw.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
