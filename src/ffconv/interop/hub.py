"""Networks as folders that a model hub holds: weights, what rebuilds the network, a card.

    config.json          the network's name in timm's registry, its arguments, preprocessing, class names
    model.safetensors    the weights
    README.md            the model card

The layout is timm's, so that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` and ``"hf-hub:..."``
read it after ``import ffconv``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from torch import nn

from ffconv.analysis.networks import takes_clips
from ffconv.errors import InputError
from ffconv.files import make_folder, write_atomically
from ffconv.interop.model_card import About, model_card
from ffconv.interop.package_info import CONFIG, WEIGHTS, read_config, read_package
from ffconv.interop.reading import read_checkpoint
from ffconv.models.registry import put_weights
from ffconv.surgery import conversion_report
from ffconv.training.checkpoint import save_weights

CARD = "README.md"


def save_pretrained(
    network: nn.Module, folder: str | Path, about: About | None = None, *, name: str | None = None
) -> None:
    """Write a network to a folder that :func:`from_pretrained`, timm and the Hub read.

    A network of timm's registry, converted by :func:`ffconv.convert` or not, is written with what rebuilds
    it. Of another network only the weights are, and the reader brings the network.

    Args:
        network: as it was made, converted, trained; before ``fuse`` and the like.
        folder: is made; files of these names in it are replaced.
        about: class names, preprocessing, metrics, which the network itself does not know.
        name: what the card calls it; by default the folder's name.
    Raises:
        InputError: if the network is of timm's registry, but was changed so that its name and arguments give
            another one; if the folder cannot be written.
    """
    folder, about = Path(folder), about or About()
    with _said_in_a_line(f"cannot save {type(network).__name__}"):
        config = _config(network, about)
        card = model_card(network, config, name=name or folder.resolve().name, about=about)
    make_folder(folder)
    save_weights(folder / WEIGHTS, network.state_dict(), about.checkpoint and about.checkpoint.metadata())
    write_atomically(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    write_atomically(folder / CARD, card.encode())


def from_pretrained(
    source: str | Path,
    *,
    network: nn.Module | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> nn.Module:
    """The network of a folder of :func:`save_pretrained`, or of a repository of the Hub, in evaluation mode.

    Args:
        source: a folder, or ``"user/name"``. The Hub's files are cached as ``huggingface_hub`` does it.
        network: takes the weights, where the architecture is not in timm's registry.
        revision: branch, tag or commit of the repository.
        token: the Hub's, for a private repository; by default the stored one.
    Returns:
        The network; ``network.pretrained_cfg`` has preprocessing and ``label_names``.
    Raises:
        InputError: if there is no such folder or repository, a file is missing or damaged, the architecture
            is unknown, or the weights do not fit it.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _fetched(str(source), revision, token)
    weights = folder / WEIGHTS
    tensors = read_checkpoint(weights)
    if network is None:
        package = read_package(folder)
        name, network = package.name, package.create(weights)
    else:
        read_config(folder / CONFIG)
        name = type(network).__name__
    return put_weights(network, tensors, name=name, source=weights)


def push_to_hub(
    network: nn.Module,
    repo_id: str,
    about: About | None = None,
    *,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Save a network and upload it to a repository of the Hub, which is made if there is none.

    Args:
        network: as for :func:`save_pretrained`.
        repo_id: ``"user/name"``.
        about: as for :func:`save_pretrained`.
        private: whether a new repository is private.
        token: the Hub's; by default the one that ``hf auth login`` stored.
    Returns:
        The address of the commit.
    Raises:
        InputError: as :func:`save_pretrained`, or if the Hub refuses or cannot be reached.
    """
    with TemporaryDirectory() as folder:
        save_pretrained(network, folder, about, name=repo_id)
        return upload(Path(folder), repo_id, private=private, token=token)


def upload(folder: Path, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a folder of :func:`save_pretrained` in one commit; the rest is as for :func:`push_to_hub`."""
    from huggingface_hub import HfApi

    with _said_in_a_line(f"cannot push to {repo_id}"):
        api = HfApi(token=token, library_name="ffconv")
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=[CONFIG, WEIGHTS, CARD],
            commit_message="Upload by ffconv",
        )
    return commit.commit_url


def _config(network: nn.Module, about: About) -> dict[str, Any]:
    """Content of config.json."""
    from ffconv import __version__

    ours: dict[str, Any] = {"version": __version__, "class": type(network).__name__}
    if takes_clips(network):
        ours["frames"] = about.frames
    if not getattr(network, "pretrained_cfg", None):
        return {"ffconv": ours}
    architecture, arguments = _name_and_arguments(network)
    with TemporaryDirectory() as folder:
        from timm.models._hub import save_config_for_hf  # save_for_hf would write weights, too

        # The weights are no longer those of the tag.
        replaced = {"architecture": architecture, "tag": None, "license": about.license}
        extra = {"pretrained_cfg": replaced, "ffconv": ours}
        if about.classes:
            extra["label_names"] = list(about.classes)
        save_config_for_hf(
            network,
            str(Path(folder) / CONFIG),
            model_config=extra,
            model_args=arguments,
            data_config=dict(about.preprocessing),
        )
        return json.loads((Path(folder) / CONFIG).read_text())


def _name_and_arguments(network: Any) -> tuple[str, dict[str, Any]]:
    """Name and arguments by which timm makes this network."""
    from timm.models import get_model_args

    name, arguments = network.pretrained_cfg["architecture"], get_model_args(network)
    candidates = [(name, arguments)]
    try:
        # timm.create_model drops None, so the arguments of what is read back have none.
        again = {
            key: value for key, value in conversion_report(network).arguments().items() if value is not None
        }
        candidates.append(("ffc_converted", {"network": name, **arguments, **again}))
    except InputError:
        pass  # it was not converted
    differences = []
    for name, arguments in candidates:
        with torch.device("meta"):
            twin = timm.create_model(name, **arguments)
        difference = _first_difference(twin, network)
        if difference is None:
            return name, arguments
        differences.append(difference)
    raise InputError(
        f"{candidates[0][0]} was changed after it was made, and its name does not rebuild it"
        f" ({differences[0]}): save it before fuse and the like, or without pretrained_cfg its weights alone"
    )


def _first_difference(expected: nn.Module, found: nn.Module) -> str | None:
    before, now = ({k: tuple(t.shape) for k, t in net.state_dict().items()} for net in (expected, found))
    for key in (*before, *now):
        if before.get(key) != now.get(key):
            return f"{key} is {now.get(key, 'missing')}, not {before.get(key, 'there')}"
    return None


def _fetched(repo_id: str, revision: str | None, token: str | None) -> Path:
    """The folder of a repository's files in the Hub's cache."""
    from huggingface_hub import hf_hub_download

    with _said_in_a_line(f"no folder {repo_id!r}, and no such package on the Hub"):
        files = [hf_hub_download(repo_id, file, revision=revision, token=token) for file in (CONFIG, WEIGHTS)]
    return Path(files[0]).parent


@contextmanager
def _said_in_a_line(what: str) -> Iterator[None]:
    """Errors of timm's and the Hub's libraries as `InputError`, by their first line."""
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        yield
    except InputError:
        raise
    except (OSError, HTTPError, HFValidationError, ValueError, RuntimeError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise InputError(f"{what}: {lines[0]}") from error
