"""Seeding the global random state, which random layers and modules' own initialisers draw from."""

from __future__ import annotations

import torch


def seed_global(seed: int, device: torch.device | str = "cpu") -> None:
    """What ``torch.manual_seed`` does for a model on ``device``: the same numbers follow.

    ``torch.manual_seed`` also seeds every other kind of device, and keeps a stack trace for each that is absent: hundreds of
    microseconds where a CPU's own generator takes two.
    """
    on_cpu = torch.device(device).type == "cpu"
    (torch.default_generator.manual_seed if on_cpu else torch.manual_seed)(seed)
