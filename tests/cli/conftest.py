from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_lines_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that compare what is printed do not depend on how fast the machine is."""
    monkeypatch.setattr("ffconv.cli.progress._SILENT_SECONDS", 3600.0)
