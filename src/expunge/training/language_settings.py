"""How a language model learns records: the settings alone, which job files are checked by before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LanguageSettings:
    """Mini-batches of AdamW on answers, one mean over rows of their mean token losses a step.

    Attributes:
        epochs: passes over the records; ``steps``: instead of epochs.
        lr: peak rate; it rises over the share ``warmup`` of the steps, from 0 at the first, then falls as a cosine
            (``training.annealing``, as ``transformers`` counts steps).
        batch_size: records in each step.
        weight_decay: of AdamW; biases and weights of normalisation have none, as in the Trainer of ``transformers``.
        clip: largest L2 norm of a step's gradient; larger ones are scaled down to it.
        wording: name of a way to word questions anew in each epoch (``WORDINGS`` of ``training.language``); ``as written``
            leaves them.
        lora: settings of PEFT's ``LoraConfig`` for an adapter that is merged at the end; ``None``: all weights move.
    """

    epochs: int = 1
    steps: int | None = None
    lr: float = 1e-3
    batch_size: int = 16
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip: float = 1.0
    wording: str = "as written"
    lora: Mapping[str, Any] | None = None
