"""The command line."""

from __future__ import annotations

from ffconv.cli.main import main

__all__ = ["main"]
