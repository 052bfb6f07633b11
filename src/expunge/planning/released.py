"""What a run released, against what was there before: different models, what each adds to the composition, what changed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from expunge.core.certificate import Verdict
from expunge.core.digest import digest_arrays
from expunge.core.method import Release, Unlearned
from expunge.core.trained import Artifact, Trained


def distinct(views: Mapping[str, Artifact]) -> list[tuple[tuple[str, ...], Artifact]]:
    """The different models of a run, each with all that hold it, in order: equal bytes are one model."""
    held: dict[tuple[str, str], list[str]] = {}
    for view, artifact in views.items():
        adapter = "" if artifact.adapter is None else digest_arrays(artifact.adapter)
        held.setdefault((artifact.digest, adapter), []).append(view)
    return [(tuple(names), views[names[0]]) for names in held.values()]


def mu_of(release: Release) -> float:
    """What a release adds to the composition; infinite where nothing bounds it."""
    certificate = release.certificate
    return math.inf if certificate is None or certificate.verdict is Verdict.VOID else certificate.mu


def change_of(before: Trained, result: Unlearned) -> dict[str, float]:
    """L2 change of each tensor, the largest over views; a tensor without counterpart counts as changed.

    Counters (whole numbers, such as the batches that batch normalisation has seen) are no weights and are left out.
    """
    change: dict[str, float] = {}
    for view, artifact in result.views.items():
        for name, tensor in artifact.tensors.items():
            if not (tensor.is_floating_point() or tensor.is_complex()):
                continue
            old = before.view(view).tensors.get(name)
            if old is None or old.shape != tensor.shape:
                size = float("inf")
            elif torch.equal(old.cpu(), tensor.cpu()):
                size = 0.0
            else:
                size = float((tensor.detach().cpu().double() - old.detach().cpu().double()).norm()) or 5e-324
            change[name] = max(size, change.get(name, 0.0))
    return change
