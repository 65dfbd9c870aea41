"""The README's lines print what the README says."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from documents import DOCS, code_blocks

README = DOCS.parent / "README.md"


def test_the_printed_output_is_the_readmes(capsys: pytest.CaptureFixture[str]):
    (code,) = code_blocks(README, "python")
    (output,) = code_blocks(README, "text")
    exec(code, {})
    assert capsys.readouterr().out == output


def test_links_and_pictures_are_files():
    links = [
        token.attrGet("href") or token.attrGet("src")
        for inline in MarkdownIt().parse(README.read_text())
        for token in inline.children or ()
        if token.type in ("link_open", "image")
    ]
    missing = [link for link in links if not (README.parent / str(link).partition("#")[0]).is_file()]
    assert links
    assert missing == []
