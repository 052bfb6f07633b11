"""Names of weights that a wrapper has put a word before: data parallel, compiled, private and Lightning modules."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

# nn.DataParallel and DistributedDataParallel; torch.compile; Opacus; Lightning modules and most users' own
PREFIXES = ("module.", "_orig_mod.", "_module.", "model.")


def may_be_wrapped(tensors: Mapping[str, Tensor]) -> bool:
    """Whether every name begins with one of the prefixes, so that only the architecture can tell if one is to be taken off."""
    return bool(tensors) and any(all(name.startswith(word) for name in tensors) for word in PREFIXES)


def unwrapped(expected: Collection[str], tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """``tensors`` under the names that an architecture has, and the prefix that was taken off; empty: none was.

    A prefix is taken off only where every name begins with it and the architecture has none of the names as they are: any
    other difference is for the check of the architecture to refuse.

    Args:
        expected: names that the architecture has.
        tensors: name → weight, as a checkpoint has them.
    """
    prefix, names = "", dict(zip(tensors, tensors, strict=True))
    while names and not any(name in expected for name in names.values()):
        first = next((word for word in PREFIXES if all(name.startswith(word) for name in names.values())), None)
        if first is None:
            return tensors, ""
        prefix += first
        names = {old: name.removeprefix(first) for old, name in names.items()}
    return ({name: tensors[old] for old, name in names.items()}, prefix) if prefix else (tensors, "")
