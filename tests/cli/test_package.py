"""``ffconv package``: the folder stands for the checkpoint; only --push sends it anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commands import QUICK_TRAIN, refused, run_of
from ffconv.cli import main
from ffconv.data.embedded import Digits
from ffconv.interop import hub


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(QUICK_TRAIN, tmp_path_factory)


def test_commands_take_the_package_for_the_checkpoint(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["package", str(run_folder), str(tmp_path / "mine"), "--license", "mit"]) == 0
    Digits("val")[3][0].save(tmp_path / "digit.png")
    printed = []
    for checkpoint in (run_folder, tmp_path / "mine"):
        capsys.readouterr()
        assert main(["predict", str(checkpoint), str(tmp_path / "digit.png"), "--device", "cpu"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "license: mit" in (tmp_path / "mine" / "README.md").read_text()


def test_push_uploads_the_folder_under_the_repositorys_name(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    sent: list[Any] = []

    def upload(folder: Path, repo_id: str, *, private: bool) -> str:
        sent.append((folder, repo_id, private))
        return "https://hub/commit/1"

    monkeypatch.setattr(hub, "upload", upload)
    words = ["package", str(run_folder), str(tmp_path / "mine"), "--weights", "last"]
    assert main(words) == 0
    assert sent == []
    assert main([*words, "--push", "me/mine", "--private", "true"]) == 0
    assert sent == [(tmp_path / "mine", "me/mine", True)]
    assert 'from_pretrained("me/mine")' in (tmp_path / "mine" / "README.md").read_text()
    assert capsys.readouterr().out.endswith("https://hub/commit/1\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.safetensors", "out"], "none.safetensors: no such file"),
        (["run", "run"], "run holds the checkpoint: choose another"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str],
    message: str,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(run_folder.parent)
    assert message in refused(["package", *words], capsys)
