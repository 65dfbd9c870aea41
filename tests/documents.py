"""Code out of the documentation, so that tests run what readers copy."""

from __future__ import annotations

from pathlib import Path

from markdown_it import MarkdownIt

DOCS = Path(__file__).parents[1] / "docs"


def code_blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language, in their order."""
    return [
        token.content
        for token in MarkdownIt().parse(page.read_text())
        if token.type == "fence" and token.info == language
    ]
