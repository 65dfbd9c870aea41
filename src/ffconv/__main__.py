"""``python -m ffconv`` is the ``ffconv`` command."""

from ffconv.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
