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
from ffconv.errors import InputError, require
from ffconv.files import make_folder, write_atomically
from ffconv.interop.compare_networks import first_difference
from ffconv.interop.model_card import About, model_card
from ffconv.interop.package_info import CONFIG, WEIGHTS, describe_inputs, read_inputs, read_package
from ffconv.interop.reading import read_checkpoint
from ffconv.models.registry import put_weights
from ffconv.surgery import conversion_report
from ffconv.training.checkpoint import save_weights

CARD = "README.md"
_SECONDS_TO_ANSWER = 10
_WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


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
    folder = package_folder(source, revision=revision, token=token)
    weights = folder / WEIGHTS
    tensors = read_checkpoint(weights)
    if network is None:
        package = read_package(folder)
        name, network = package.name, package.create(weights)
    else:
        name, described = type(network).__name__, read_inputs(folder)
        known: Any = getattr(network, "pretrained_cfg", None) or {}
        vars(network)["pretrained_cfg"] = {**known, **described}
    return put_weights(network, tensors, name=name, source=weights)


def package_folder(source: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Return the folder of a package: itself, or its repository's files in the Hub's cache.

    Args:
        source: As for :func:`from_pretrained`; so are revision and token.

    Raises:
        InputError: If there is no such folder or repository.
    """
    folder = Path(source)
    return folder if folder.is_dir() else _fetched(str(source), revision, token)


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
    if not _of_timm(network):
        return {"ffconv": ours, **describe_inputs(about.classes, about.preprocessing)}
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


def _of_timm(network: Any) -> bool:
    """Return True for a network of timm's registry; those of users may have classes and sizes there, too."""
    return bool((getattr(network, "pretrained_cfg", None) or {}).get("architecture"))


def _name_and_arguments(network: Any) -> tuple[str, dict[str, Any]]:
    """Name and arguments by which timm makes this network."""
    from timm.models import get_model_args

    # timm leaves drop rates out; with them the same network comes back in training, too.
    made_with = getattr(network, "_model_args", {})
    rates = {
        key: value
        for key, value in made_with.items()
        if key.startswith("drop_") or key.endswith("_drop_rate")
    }
    name, arguments = network.pretrained_cfg["architecture"], get_model_args(network, rates)
    candidates = [(name, arguments)]
    try:
        # timm.create_model drops None, so the arguments of what is read back have none.
        again = {
            key: value for key, value in conversion_report(network).arguments().items() if value is not None
        }
        candidates.append(("ffc_converted", {"network": name, **arguments, **again}))
    except InputError:
        pass  # it was not converted
    differences: list[tuple[int, str]] = []
    for name, arguments in candidates:
        with torch.device("meta"):
            twin = timm.create_model(name, **arguments)
        difference = first_difference(twin, network)
        if difference is None:
            return name, arguments
        differences.append((len(_kinds(twin) & _kinds(network)), difference))
    raise InputError(
        f"{candidates[0][0]} was changed after it was made, and its name does not rebuild it"
        f" ({max(differences)[1]}): save it before fuse and the like, or without pretrained_cfg its weights"
        " alone"
    )


def _kinds(network: nn.Module) -> set[tuple[str, type]]:
    return {(name, type(module)) for name, module in network.named_modules()}


def _fetched(repo_id: str, revision: str | None, token: str | None) -> Path:
    """The folder of a repository's files in the Hub's cache."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    _require_repository(repo_id)
    with _said_in_a_line(f"no folder {repo_id!r}, and no such package on the Hub"):
        unreachable = None
        try:  # hf_hub_download asks five times, over half a minute
            address = hf_hub_url(repo_id, CONFIG, revision=revision)
            get_hf_file_metadata(address, token=token, timeout=_SECONDS_TO_ANSWER)
        except HfHubHTTPError:
            raise
        except (OSError, HTTPError) as error:
            unreachable = error
        cached = {"revision": revision, "token": token, "local_files_only": unreachable is not None}
        try:
            files = [hf_hub_download(repo_id, file, **cached) for file in (CONFIG, WEIGHTS)]
        except LocalEntryNotFoundError:
            raise unreachable or InputError(f"{repo_id} has no {WEIGHTS}") from None
    return Path(files[0]).parent


def _require_repository(source: str) -> None:
    """Refuse at once what is a path rather than a repository of the Hub."""
    path = Path(source)
    require(not path.is_file(), f"{source} is a file: give the folder that holds {CONFIG} and {WEIGHTS}")
    first, slash, rest = source.partition("/")
    is_path = (
        not slash
        or "/" in rest
        or source.startswith((".", "/", "~"))
        or path.suffix in _WEIGHT_SUFFIXES
        or Path(first).is_dir()
    )
    require(not is_path, f"no folder {source!r}; a repository of the Hub is written user/name")


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
