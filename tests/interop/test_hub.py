"""Packages: what was saved comes back, by us and by timm, and what is wrong is said in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import HTTPError
from torch import Tensor, nn

import ffconv
from ffconv.analysis.complexity import count_complexity
from ffconv.data.transforms import ImageTransformConfig
from ffconv.errors import InputError
from ffconv.interop.checkpoint_info import ImageInfo
from small_networks import UNet

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "image": (lambda: timm.create_model("ffc_resnet18", ratio=0.5, num_classes=5), (3, 48, 48)),
    "converted": (lambda: ffconv.convert(small(), 0.5, lfu=False), (3, 48, 48)),
    "ruled": (lambda: ffconv.convert(small(), rules={"layer2*": None, "layer3*": 0.5}), (3, 48, 48)),
    "video": (lambda: timm.create_model("ffc_c2d_resnet18", ratio=0.5, num_classes=5), (3, 4, 32, 32)),
    "pose": (lambda: timm.create_model("pose", backbone="test_resnet", num_classes=5), (3, 64, 64)),
    "lama": (lambda: timm.create_model("lama_generator", width=4, blocks=1), (4, 32, 32)),
}


def small(**arguments: Any) -> nn.Module:
    return timm.create_model("test_resnet", num_classes=5, **arguments)


def trained(network: nn.Module) -> nn.Module:
    """The network with norms that are no longer as they were made."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.normal_(module.running_mean)
    return network.eval()


def answer(network: nn.Module, size: tuple[int, ...]) -> Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        return network.eval()(torch.rand(1, *size))


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_comes_back_by_us_and_by_timm(kind: str, tmp_path: Path):
    make, size = NETWORKS[kind]
    network = trained(make())
    ffconv.save_pretrained(network, tmp_path)
    expected = answer(network, size)
    assert torch.equal(answer(ffconv.from_pretrained(tmp_path), size), expected)
    by_timm = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert torch.equal(answer(by_timm, size), expected)


def test_a_package_can_be_saved_again(tmp_path: Path):
    ffconv.save_pretrained(ffconv.convert(small()), tmp_path / "1")
    ffconv.save_pretrained(ffconv.from_pretrained(tmp_path / "1"), tmp_path / "2")
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in "12")
    assert first == second


def test_a_conversion_is_kept_whatever_the_policy(tmp_path: Path):
    network = ffconv.convert(small(), 0.5, local_to_global=False)
    ffconv.save_pretrained(network, tmp_path)
    again = ffconv.from_pretrained(tmp_path)
    rows = [
        [(row.name, row.ratio_in, row.ratio_out, row.converted) for row in ffconv.conversion_report(net).rows]
        for net in (network, again)
    ]
    assert rows[0] == rows[1]


def test_channels_last_weights_are_saved(tmp_path: Path):
    network = trained(small().to(memory_format=torch.channels_last))
    ffconv.save_pretrained(network, tmp_path)
    again = ffconv.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in network.state_dict().items())


def test_classes_and_preprocessing_come_back_where_timm_looks_for_them(tmp_path: Path):
    about = ffconv.About(classes=tuple("abcde"), preprocessing={"input_size": (3, 40, 40), "crop_pct": 0.5})
    ffconv.save_pretrained(small(), tmp_path, about)
    network = ffconv.from_pretrained(tmp_path)
    assert network.pretrained_cfg["label_names"] == list("abcde")
    found = timm.data.resolve_model_data_config(network)
    assert (found["input_size"], found["crop_pct"]) == ((3, 40, 40), 0.5)


def test_another_head_is_the_networks_own(tmp_path: Path):
    network = small()
    network.reset_classifier(2)
    ffconv.save_pretrained(network, tmp_path)
    assert ffconv.from_pretrained(tmp_path).num_classes == 2


def test_a_network_of_ones_own_needs_its_architecture(tmp_path: Path):
    def made() -> nn.Module:
        return ffconv.convert(UNet(8, bilinear=True), example_input=torch.zeros(1, 3, 32, 32))

    network = trained(made())
    ffconv.save_pretrained(network, tmp_path)
    with pytest.raises(InputError, match=r"weights of UNet, which timm's registry does not have: build it"):
        ffconv.from_pretrained(tmp_path)
    again = ffconv.from_pretrained(tmp_path, network=made())
    assert torch.equal(answer(again, (3, 32, 32)), answer(network, (3, 32, 32)))


def test_a_network_of_ones_own_keeps_its_classes_and_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def made() -> nn.Module:
        return ffconv.convert(UNet(8, bilinear=True), example_input=torch.zeros(1, 3, 32, 32))

    monkeypatch.chdir(tmp_path)
    about = ffconv.About(
        classes=("cat", "dog"), preprocessing={"input_size": (3, 48, 32), "mean": (0.5,) * 3}
    )
    ffconv.save_pretrained(made(), "mine", about)
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "then ffconv.convert(network, ratio=0.25, lfu=True)" in card
    assert "| classes | 2 |" in card
    code = card.partition("```python\n")[2].partition("```")[0]
    found: dict[str, Any] = {"made": made}
    exec(code.replace("network = ...", "network = made()"), found)
    assert found["classes"] == ["cat", "dog"]
    known = found["network"].pretrained_cfg
    assert (known["input_size"], known["mean"]) == ((3, 48, 32), (0.5, 0.5, 0.5))
    ffconv.save_pretrained(found["network"], "again", about)
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("mine", "again"))
    assert first == second


def test_unknown_preprocessing_of_ones_own_network_is_refused(tmp_path: Path):
    about = ffconv.About(preprocessing={"size": 224})
    with pytest.raises(InputError, match=r"preprocessing\.size: preprocessing has the fields input_size"):
        ffconv.save_pretrained(UNet(8, bilinear=True), tmp_path, about)


def test_a_network_of_another_shape_is_refused(tmp_path: Path):
    ffconv.save_pretrained(UNet(8, bilinear=True), tmp_path)
    with pytest.raises(InputError, match=r"model\.safetensors: the weights do not fit UNet: .*size mismatch"):
        ffconv.from_pretrained(tmp_path, network=UNet(16, bilinear=True))


def test_a_changed_network_is_refused_with_what_changed(tmp_path: Path):
    network = small()
    network.add_module("extra", nn.Linear(2, 3))
    message = r"test_resnet was changed after it was made.*\(extra is new\)"
    with pytest.raises(InputError, match=message):
        ffconv.save_pretrained(network, tmp_path)
    assert list(tmp_path.iterdir()) == []


def changed_eps(network: Any) -> None:
    network.layer1[0].bn1.eps = 0.1


def changed_activation(network: Any) -> None:
    network.layer1[0].act1 = nn.GELU()


def changed_pooling(network: Any) -> None:
    network.maxpool = nn.Identity()


def changed_stride(network: Any) -> None:
    network.layer2[0].conv1.stride = (1, 1)


def changed_forward(network: Any) -> None:
    network.layer1[0].forward = lambda x: x


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (changed_eps, r"layer1\.0\.bn1\.eps is 0\.1, not 1e-05"),
        (changed_activation, r"layer1\.0\.act1 is a GELU, not a ReLU"),
        (changed_pooling, r"maxpool is a Identity, not a MaxPool2d"),
        (changed_stride, r"layer2\.0\.conv1\.stride is \(1, 1\), not \(2, 2\)"),
        (changed_forward, r"layer1\.0\.forward was replaced"),
    ],
)
@pytest.mark.parametrize("converted", [False, True])
def test_another_setting_is_refused_by_name(
    converted: bool, change: Callable[[Any], None], difference: str, tmp_path: Path
):
    network: Any = timm.create_model("resnet18", num_classes=2, layers=(1, 1, 1, 1))
    network = ffconv.convert(network, lfu=False) if converted else network
    change(network)
    with pytest.raises(InputError, match=rf"resnet18 was changed .*\({difference}\)"):
        ffconv.save_pretrained(network, tmp_path)


def test_training_is_no_change(tmp_path: Path):
    network: Any = small(drop_rate=0.2).train()
    network.set_grad_checkpointing(True)
    nn.SyncBatchNorm.convert_sync_batchnorm(network)
    ffconv.save_pretrained(nn.SyncBatchNorm.convert_sync_batchnorm(network), tmp_path)
    assert ffconv.from_pretrained(tmp_path).drop_rate == 0.2


def test_the_card_has_the_figures(tmp_path: Path):
    network = timm.create_model("ffc_resnet18", num_classes=1000)
    ffconv.save_pretrained(network, tmp_path, ffconv.About(metrics={"top1": 71.25}, data="ImageNet"))
    card = (tmp_path / "README.md").read_text()
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    assert f"| parameters | {parameters:.2f} M |" in card
    assert "| top1 | 71.25 |" in card
    assert "`ffc_resnet18` with 17 Fast Fourier Convolutions" in card
    multiply_adds = count_complexity(network).total().multiply_adds / 1e9
    assert f"| multiply-adds at 3x224x224 | {multiply_adds:.3f} G |" in card


def test_the_cards_header_is_the_hubs(tmp_path: Path):
    about = ffconv.About(
        license="mit", checkpoint=ImageInfo("test_resnet", {}, tuple("abcde"), ImageTransformConfig())
    )
    ffconv.save_pretrained(small(), tmp_path, about)
    data = huggingface_hub.ModelCard.load(tmp_path / "README.md").data
    assert (data.library_name, data.license, data.pipeline_tag) == ("timm", "mit", "image-classification")


def test_the_cards_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ffconv.save_pretrained(small(), tmp_path / "mine", ffconv.About(classes=tuple("abcde")))
    code = (tmp_path / "mine" / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["classes"] == list("abcde")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"config\.json: is not JSON: Expecting"),
        ("[]", r"config\.json: must hold fields and values"),
        ('{"model_type": "bert"}', r"config\.json is not of timm or ffconv, but of a bert"),
        ('{"architecture": "resnet81"}', r"architecture='resnet81' is no network timm knows; did you mean"),
        ('{"architecture": "resnet18"}', r"model\.safetensors: the weights do not fit resnet18"),
        (
            '{"architecture": "test_resnet", "pretrained_cfg": {}, "model_args": {"ratios": 1}}',
            r"model test_resnet with ratios=1: .*unexpected keyword argument 'ratios'",
        ),
    ],
)
def test_a_wrong_configuration_is_said_in_a_line(content: str, message: str, tmp_path: Path):
    ffconv.save_pretrained(small(), tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        ffconv.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name: str, tmp_path: Path):
    ffconv.save_pretrained(small(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name}: [Nn]o such file"):
        ffconv.from_pretrained(tmp_path)


def test_a_truncated_file_of_weights_is_named(tmp_path: Path):
    ffconv.save_pretrained(small(), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: truncated"):
        ffconv.from_pretrained(tmp_path)


def test_a_repository_is_fetched_at_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ffconv.save_pretrained(small(), tmp_path)
    asked = []

    def fetch(repo_id: str, name: str, **options: Any) -> str:
        asked.append((repo_id, name, options["revision"]))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *arguments, **options: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    ffconv.from_pretrained("me/mine", revision="v1")
    assert asked == [("me/mine", "config.json", "v1"), ("me/mine", "model.safetensors", "v1")]


def test_what_is_neither_folder_nor_repository_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"no folder 'me/mine', and no such package on the Hub: [^\n]+$"):
        ffconv.from_pretrained("me/mine")


@pytest.mark.parametrize(
    "source", ["mine", "no/such/folder", "./mine", "/mine", "~/mine", "me/mine.safetensors", "here/mine"]
)
def test_a_path_is_not_looked_for_on_the_hub(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", None)
    with pytest.raises(InputError, match=rf"^no folder '{source}'; a repository of the Hub is"):
        ffconv.from_pretrained(source)


def test_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def unreachable(*arguments: Any, **options: Any) -> None:
        asked.append(options["timeout"])
        raise HTTPError("no route")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    with pytest.raises(InputError, match=r"no folder 'me/mine', and no such package on the Hub: no route$"):
        ffconv.from_pretrained("me/mine")
    assert asked == [10]


class FakeHub:
    """Stands in for the Hub's interface, and keeps what it was given."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> SimpleNamespace:
        if repo_id == "other/mine":
            raise HTTPError("403 Forbidden: not yours\nmore")
        self.private = private
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> SimpleNamespace:
        uploaded.update(repo_id=repo_id, private=self.private, **self.options)
        uploaded["files"] = {file.name: file.read_bytes() for file in folder_path.iterdir()}
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


uploaded: dict[str, Any] = {}


def test_push_uploads_one_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    address = ffconv.push_to_hub(small(), "me/mine", private=True, token="secret")
    assert address == "https://hub/me/mine/commit/1"
    assert (uploaded["repo_id"], uploaded["private"], uploaded["token"]) == ("me/mine", True, "secret")
    assert sorted(uploaded["files"]) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads(uploaded["files"]["config.json"])["architecture"] == "test_resnet"
    assert b'timm.create_model("hf-hub:me/mine", pretrained=True)' in uploaded["files"]["README.md"]


def test_a_refused_push_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    with pytest.raises(InputError, match=r"cannot push to other/mine: 403 Forbidden: not yours$"):
        ffconv.push_to_hub(small(), "other/mine")
