"""Random labels on the salient half of the weights.

Fan et al., "SalUn", ICLR 2024, arXiv 2310.12508. Formal guarantee: none. Somebody else's ten runs of the released code found
forget accuracy 99.4 where the paper reports 97.2: read its gap beside its forget accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from expunge.core.allowed import Count, Positive, Share
from expunge.core.method import Capabilities, Context, Paper, Ranges
from expunge.descent.descend import Descend
from expunge.descent.parameters import Saliency
from expunge.descent.schedule import FORGET, RETAIN, Passes
from expunge.methods.by_descent import GradientMethod, by_trainer, given
from expunge.objectives.generation import wrong_labels


@dataclass(frozen=True, kw_only=True)
class SalUn(GradientMethod):
    """Random labels under a mask that both passes obey.

    Attributes:
        density: share of weights that may move, 0.5.
        epochs, retain_lr: 10 and 0.01; lr: of forget steps, ``None``: 0.018 shared and 1.3e-4 under ``dual``: 10 % of
            CIFAR-10 (DualOptim, arXiv 2504.15827, Tables 7 to 11).
        mask: ``forget``, SalUn's own, or ``difference``, the one of DualOptim's code; ``augmented``: of augmented views, as
            there; see :class:`~expunge.descent.parameters.Saliency`.
        strict: put masked weights back after each step, which decay and momentum otherwise move; ``False`` is what the
            code of SalUn did until February 2026, and DualOptim's copy of it does: the code behind the published tables.
        clip: largest gradient norm of all steps; ``None``: not clipped. 1 for DDPM (SalUn's code).
        optimizer: ``adam`` for models that Adam trained, such as DDPM: lr 4e-5 and retain_lr 1e-4 there (DualOptim, arXiv
            2504.15827); ``sgd`` else.
        dual: DualOptim.
    """

    name: ClassVar[str] = "salun"
    capabilities: ClassVar[Capabilities] = Capabilities(tasks=("classification", "diffusion"))
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "SalUn: empowering machine unlearning via gradient-based weight saliency in both image "
            "classification and generation",
            "Fan et al., ICLR 2024",
            "2310.12508",
        ),
    )
    ranges: ClassVar[Ranges] = {"lr": (1e-4, 1e-1)}
    density: Share = 0.5
    epochs: Count = 10
    lr: Positive | None = None
    retain_lr: Positive = 0.01
    batch_size: Count = 128
    mask: Literal["forget", "difference"] = "forget"
    augmented: bool = False
    strict: bool = True
    clip: Positive | None = None
    optimizer: Literal["sgd", "adam"] = "sgd"
    dual: bool = False

    def preparing(self, forget: int, retain: int) -> int:
        """The mask sees each forgotten row once, and each retained one where it is of the difference."""
        return forget + (retain if self.mask == "difference" else 0)

    def composition(self, context: Context) -> Descend:
        """With DualOptim only the last word changes."""
        lr = given(self.lr, 1.3e-4 if self.dual else 0.018)
        optimizer = by_trainer(self.optimizer, self.dual, lr, self.retain_lr)
        mask = Saliency(self.density, self.batch_size, self.strict, self.mask, self.augmented)
        clip: dict[str, float] = {} if self.clip is None else {FORGET: self.clip, RETAIN: self.clip}
        return Descend(wrong_labels(context.task), Passes(self.epochs), optimizer, mask, clip=clip)
