"""Loads weights of other people, and ours, into a network: recognised, renamed, checked, then copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from ffconv.errors import InputError
from ffconv.interop.fitting import (
    CLASSIFIERS,
    add_identity_shortcuts,
    fit_convolutions,
    inflate_weights,
    interleave_parts,
    lacking_non_local_blocks,
    move_into_backbone,
    ordinary_name,
    shapes,
    spectral_prefixes,
    strip_wrappers,
)
from ffconv.interop.formats import Format, recognise
from ffconv.interop.reading import find_weights, read_checkpoint
from ffconv.wording import counted

SpectralLayout = Literal["interleaved", "stacked"]


@dataclass(frozen=True)
class LoadReport:
    """What became of each weight.

    Attributes:
        loaded: the network's entries that got the file's values.
        kept: entries the file has no values for and need not have: spectral parts that a plain convolution
            lacks, counters of old norms, what stands behind a backbone, non-local blocks, and a classifier
            of another size where that was allowed.
        missing: the network's other entries that the file lacks.
        unexpected: the file's entries, by our names, that the network lacks.
        mismatched: entries of another shape, with both shapes.
        source: the file's name, or "state dict", with the entry the weights were in.
        format: whose names they had.
        repeated: weights of an image network that were repeated over time for a network of clips.
    """

    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    source: str = "state dict"
    format: str = ""
    repeated: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Return True if nothing is missing, unexpected or of another shape."""
        return not (self.missing or self.unexpected or self.mismatched)

    @property
    def faults(self) -> str:
        """Missing, unexpected and misshapen entries in one line, the first few of each by name."""
        kinds = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", self.mismatched),
        )
        return "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds if names)

    def __str__(self) -> str:
        lines = [f"{self.source}: weights of {self.format}, {counted(len(self.loaded), 'entry')} loaded"]
        if self.repeated:
            lines.append(f"{counted(len(self.repeated), 'weight')} of images repeated over time")
        if self.kept:
            lines.append(f"{len(self.kept)} left as they were: {_listed(self.kept)}")
        return "\n".join(lines + ([self.faults] if self.faults else []))


class WeightsMismatchError(InputError):
    """The weights do not fit the network. ``report`` has all the names, the message the first of them."""

    def __init__(self, report: LoadReport, model: nn.Module) -> None:
        self.report = report
        start = f"{report.source}: weights of {report.format} do not fit {type(model).__name__}"
        super().__init__(f"{start}: {report.faults}")


def load_weights(
    model: nn.Module,
    source: str | PathLike[str] | Mapping[str, Any],
    *,
    entry: str | None = None,
    spectral_layout: SpectralLayout = "interleaved",
    allow_new_classifier: bool = False,
    strict: bool = True,
) -> LoadReport:
    """Loads a checkpoint into a network, whoever's names it has.

    Knows the released FFC code's checkpoints, ours, SimpleBaseline's, and those of plain torchvision and timm
    networks, which go into an FFC network of the same shape: each convolution into the parts that correspond,
    while the spectral parts keep what they have. An image network's weights go into the backbone of a pose
    network, whose other layers keep theirs, and into a video network, repeated over time and divided by the
    number of times; non-local blocks that the file lacks keep theirs. Files are safetensors or
    ``torch.save``'s, read without running code.

    Nothing is copied before all of it has been checked: after an error the network is as it was.

    Args:
        model: the bare network, not a compiled or distributed wrapper of it.
        source: a file, or what is in one.
        entry: the entry of the file that holds the weights, such as "model"; by default the usual ones are
            tried, averaged weights first.
        spectral_layout: order of the spectral channels in the file, [re0, im0, re1, ...] ("interleaved": the
            released code, LaMa, ours) or [all real, all imaginary] ("stacked"). The shapes do not tell.
        allow_new_classifier: keep the network's classifier where the file's has another size.
        strict: whether weights that do not all fit are an error; otherwise those that fit are loaded.
    Returns:
        what was loaded and what was not.
    Raises:
        InputError: if the file cannot be read, or only by running code, or if the weights do not fit.
    Example:
        >>> from torch import nn
        >>> print(load_weights(nn.Linear(2, 1), nn.Linear(2, 1).state_dict()))
        state dict: weights of plain convolutions (torchvision, timm), 2 entries loaded
    """
    if spectral_layout not in ("interleaved", "stacked"):
        raise InputError(f"spectral_layout={spectral_layout!r} must be 'interleaved' or 'stacked'")
    name, tensors = _read(source, entry)
    known = recognise(tensors)
    try:
        fitted = _fit(tensors, known, model, stacked=spectral_layout == "stacked")
    except (ValueError, RuntimeError) as error:  # RuntimeError: branches that do not join
        raise InputError(f"{name}: {error}") from error
    report = _compare(fitted, model, allow_new_classifier=allow_new_classifier)
    report = replace(report, source=name, format=known.name)
    if (strict and not report.fits) or not report.loaded:
        raise WeightsMismatchError(report, model)
    model.load_state_dict({key: fitted.tensors[key] for key in report.loaded}, strict=False)
    return report


def _read(
    source: str | PathLike[str] | Mapping[str, Any], entry: str | None
) -> tuple[str, dict[str, Tensor]]:
    """What the source is called, with the entry that holds the weights, and the weights."""
    if isinstance(source, Mapping):
        name, content = "state dict", source
    else:
        name, content = fspath(source), read_checkpoint(source)
    tensors, found_in = find_weights(content, source=name, entry=entry)
    return f"{name} [{found_in}]" if found_in else name, tensors


class _Fitted(NamedTuple):
    """Weights by the network's names: what convolutions they do not fit, what they need not have, and which
    were repeated over time."""

    tensors: dict[str, Tensor]
    misfits: dict[str, str]
    may_lack: set[str]
    repeated: tuple[str, ...]


def _fit(tensors: dict[str, Tensor], known: Format, model: nn.Module, *, stacked: bool) -> _Fitted:
    """Renames weights of a known format and gives each layer what it takes."""
    tensors, may_lack = move_into_backbone(strip_wrappers(known.convert(tensors), model), model)
    if stacked:
        tensors = interleave_parts(tensors, model)
    if not known.has_spectral:
        tensors, shortcuts = add_identity_shortcuts(tensors, model)
        may_lack |= shortcuts | spectral_prefixes(model)
    may_lack |= lacking_non_local_blocks(tensors, model)
    tensors, repeated = inflate_weights(tensors, model)
    return _Fitted(*fit_convolutions(tensors, model), may_lack, repeated)


def _compare(found: _Fitted, model: nn.Module, *, allow_new_classifier: bool) -> LoadReport:
    """What would become of each entry of the network and of the file."""
    fitted, misfits, may_lack, repeated = found
    wanted = model.state_dict()
    mismatched = misfits | {
        key: shapes(fitted[key].shape, tensor.shape)
        for key, tensor in wanted.items()
        if key in fitted and fitted[key].shape != tensor.shape
    }
    missing = [key for key in wanted if key not in fitted and ordinary_name(key) not in misfits]
    unexpected = [key for key in fitted if key not in wanted]
    own = _classifier_prefix(model) if allow_new_classifier else ()
    if not any(key.startswith(own) for key in (*missing, *unexpected, *mismatched)):
        own = ()

    def excused(key: str) -> bool:
        return key.startswith((*may_lack, *own)) or key.endswith("num_batches_tracked")

    return LoadReport(
        loaded=tuple(
            key for key in wanted if key in fitted and key not in mismatched and not key.startswith(own)
        ),
        kept=tuple(key for key in wanted if key.startswith(own) or (key not in fitted and excused(key))),
        missing=tuple(key for key in missing if not excused(key)),
        unexpected=tuple(key for key in unexpected if not key.startswith(own)),
        mismatched=tuple(f"{key} ({text})" for key, text in mismatched.items() if not key.startswith(own)),
        repeated=repeated,
    )


def _classifier_prefix(model: nn.Module) -> tuple[str, ...]:
    """The classifier's prefix, by timm's own account where there is one, else by its usual names."""
    get_classifier = getattr(model, "get_classifier", None)
    heads = [get_classifier()] if callable(get_classifier) else []
    names = [name for name, module in model.named_modules() if any(module is head for head in heads)]
    names = names or [name for name in CLASSIFIERS if hasattr(model, name)]
    return tuple(f"{name}." for name in names)


def _listed(names: tuple[str, ...], limit: int = 10) -> str:
    rest = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
