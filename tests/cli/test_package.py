"""``ffconv package``: the folder stands for the checkpoint; only --push sends it anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm

from commands import QUICK_TRAIN, image_folder, refused, run_of
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


def test_commands_take_the_folder_of_save_pretrained(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    about = hub.About(classes=("cat", "dog"), preprocessing={"input_size": (3, 40, 40)})
    hub.save_pretrained(timm.create_model("test_resnet", num_classes=2), tmp_path / "bare", about)
    Digits("val")[3][0].save(tmp_path / "digit.png")
    assert main(["predict", str(tmp_path / "bare"), str(tmp_path / "digit.png"), "--device", "cpu"]) == 0
    assert "cat" in capsys.readouterr().out
    words = ["export", str(tmp_path / "bare"), "-o", str(tmp_path / "x.pt"), "--to", "torchscript"]
    assert main(words) == 0
    assert "classification: image 1x3x40x40 float32 -> logits" in capsys.readouterr().out


def test_a_set_of_other_classes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    about = hub.About(preprocessing={"input_size": (3, 40, 40)})
    hub.save_pretrained(timm.create_model("test_resnet", num_classes=2), tmp_path / "bare", about)
    image_folder(tmp_path / "set" / "val", "ab")
    words = ["evaluate", str(tmp_path / "bare"), "--data.path", str(tmp_path / "set"), "--device", "cpu"]
    assert "the labels are counted by 2 classes 0, 1" in refused(words, capsys)


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
