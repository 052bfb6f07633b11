"""What a torch file holds, read so that nothing in it is executed."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError
from expunge.data.damage import TORCH


def read_torch(path: Path) -> Any:
    """Tensors and plain values of a file that ``torch.save`` wrote.

    Raises:
        InputError: where it is damaged, no torch file, or asks for anything that could run code.
    """
    import torch

    try:
        with warnings.catch_warnings():  # about pickle dialects that are refused anyway
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except TORCH as error:
        # a place in the file that its directory names and no file has is the content's fault; other failures are the machine's
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise InputError(
            f"{path.name} was refused: it is not a file of plain tensors (a pickle may run code when it is read, so nothing "
            "in it was executed). Save the weights as safetensors."
        ) from None
