"""A low-rank adapter as the choice of what may move (LoRA, Hu et al. 2021, arXiv 2106.09685; LUNE, arXiv 2512.07375)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.descent.parameters import Selection
from expunge.descent.streams import mixed_seed
from expunge.descent.work import Work
from expunge.tasks import adapters


@dataclass(frozen=True)
class LoRA:
    """Puts an adapter beside the model's frozen weights; it alone moves, and before the first step it changes nothing.

    Attributes:
        settings: of PEFT's ``LoraConfig``; without ``target_modules`` every linear layer but the output.
    """

    settings: Mapping[str, Any]

    def select(self, work: Work) -> Selection:
        """The adapter's tensors.

        Raises:
            InputError: for settings that PEFT does not take, or modules that the model does not have.
        """
        return Selection(adapters.inject(work.model, self.settings, mixed_seed(work.seed, "adapter", 0) % 2**63))
