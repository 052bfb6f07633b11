"""Push erased rows off the centre of their retained neighbours, as far as a mode-connected surrogate says.

Wang, Tian, Zhang, Chen and Yu, "ManiF-SMC", KDD 2026, arXiv 2605.22871. Formal guarantee: none. The body of the paper was not
readable to us: this is a reconstruction from its abstract and its rebuttals, and not the step of its released code
(wwq5-code/ManiF). That code trains a variational model with a decoder, another loss on each data set (cross-entropy of the
erased label on MNIST, an L1 term of the reconstruction inside the hinge on CIFAR-10), and takes its margin from half the
current model and half a random network, on unnormalised representations against the old centre, where we train a curve.
Numbers published for it do not compare.

For single rows, not for whole classes: a forgotten class has its neighbours in other classes, and pushing it off their centre
can make it easier to tell (on small perceptrons the forget loss fell from 0.01 to 0.0004 in five epochs). With ``repair`` and
a large share of retain steps its effect is within chance there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from expunge.core.allowed import Count, NonNegative, Positive, Whole
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Configurations, Context, Estimate, Paper, Ranges, Refusal, SmallScale
from expunge.core.task import with_features
from expunge.descent.descend import Descend
from expunge.descent.members import Member
from expunge.descent.optimizer import FORGET_DECAY, Dual, Shared
from expunge.descent.parameters import Encoder
from expunge.descent.schedule import Passes
from expunge.methods.by_descent import GradientMethod, sgd
from expunge.objectives.manifold import Manifold
from expunge.objectives.margins import SelfModeConnectivity
from expunge.training.descent import trainable


@dataclass(frozen=True, kw_only=True)
class ManifSMC(GradientMethod):
    """Triplets over the encoder; the classifier head is frozen. Only erased rows and their neighbours are seen.

    Attributes:
        margin, alpha, k, anchor, distance, keep, preserve, refresh_every: see :class:`~expunge.objectives.manifold.Manifold`;
            k 5 as in the released code, the rest as we reconstructed it.
        curve_steps, curve_lr, curve_loss, curve_start: see :class:`~expunge.objectives.margins.SelfModeConnectivity`. ``rep``
            reads no label.
        epochs, lr, batch_size: 1, Adam 5e-4 and 16 as in the released code; an older script of theirs had 5 epochs.
        batch_norm: ``train`` or ``eval`` statistics while unlearning.
        repair: add a pass over the retained rows under cross-entropy to each epoch. Ours; reads labels. In a pilot of ours
            (three convolutions, 5,000 images of CIFAR-10) SalUn with two optimizers was better throughout than this
            method without it.
        retain_lr: of repair steps under ``dual``, SGD 0.01; without it they share Adam and ``lr``.
        dual: DualOptim, with ``repair``.
    """

    name: ClassVar[str] = "manif_smc"
    capabilities: ClassVar[Capabilities] = Capabilities(
        tasks=("classification",), needs=("retained data", "forgotten data", "representation")
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("ManiF-SMC", "Wang et al., KDD 2026; our reconstruction", "2605.22871"),
    )
    ranges: ClassVar[Ranges] = {"lr": (1e-5, 1e-2), "preserve": (1e-3, 1.0)}
    small: ClassVar[SmallScale] = SmallScale(
        # preserve: a gradient also where every hinge is closed, as may happen on a model that was published with noise
        quick={"k": 3, "curve_steps": 3, "preserve": 0.5}, visible={"batch_size": 4}, variants={"dual": {"repair": True}}
    )  # fmt: skip
    configurations: ClassVar[Configurations] = {
        "manif_smc+repair": {"repair": True}, "manif_smc+repair+dual": {"repair": True, "dual": True},
    }  # fmt: skip
    margin: Literal["smc", "fixed"] = "smc"
    alpha: NonNegative = 0.2
    k: Count = 5
    anchor: Literal["centroid", "original"] = "centroid"
    distance: Literal["sq_l2", "l2", "cosine"] = "sq_l2"
    keep: NonNegative = 1.0
    preserve: NonNegative = 0.0
    refresh_every: Count = 1
    curve_steps: Whole = 300
    curve_lr: Positive = 1e-2
    curve_loss: Literal["rep", "ce"] = "rep"
    curve_start: Literal["original", "fresh"] = "fresh"
    epochs: Count = 1
    lr: Positive = 5e-4
    batch_size: Count = 16
    batch_norm: Literal["train", "eval"] = "train"
    repair: bool = False
    retain_lr: Positive = 0.01
    dual: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.dual and not self.repair:
            raise InputError(
                "DualOptim needs a retain loss beside the forget loss; ManiF-SMC has one only with repair."
            )
        self._objective()

    def _objective(self) -> Manifold:
        curve = SelfModeConnectivity(self.curve_steps, self.curve_lr, self.curve_loss, self.curve_start)
        return Manifold(
            self.margin, self.alpha, self.k, self.anchor, self.distance, self.keep, self.preserve, self.refresh_every, curve,
            self.repair,
        )  # fmt: skip

    def check(self, context: Context) -> Estimate | Refusal:
        """Needs k neighbours to stay, and a representation before the head."""
        if len(context.deletion.after) < self.k:
            return Refusal(
                f"ManiF-SMC needs k={self.k} retained neighbours for each erased row; "
                f"{len(context.deletion.after)} rows are retained.",
                "Take a smaller k.",
            )
        model = context.task.build()
        try:
            head = with_features(context.task).head_of(model)
        except InputError as error:
            return Refusal(f"ManiF-SMC changes the representation before the classifier head. {error}")
        if all(name.startswith(f"{head}.") for name in trainable(model)):
            return Refusal(
                "ManiF-SMC changes the representation before the classifier head; this model has no weight there to train."
            )
        return super().check(context)

    def preparing(self, forget: int, retain: int) -> int:
        """A curve is trained on at most k neighbours of each erased row, and anew every so many epochs."""
        curve = self._objective().curve
        rows = min(curve.batch_size, self.k * forget, retain)
        return -(-self.epochs // self.refresh_every) * curve.steps * rows if self.margin == "smc" else 0

    def composition(self, context: Context) -> Descend:
        """Passes over the erased rows."""
        adam = Member("adam", self.lr)
        if self.dual:
            optimizer = Dual(Member("adamw", self.lr, weight_decay=FORGET_DECAY), sgd(self.retain_lr))
        else:
            optimizer = Shared(adam)
        return Descend(
            self._objective(), Passes(self.epochs, retain=int(self.repair)), optimizer, Encoder(),
            training_mode=self.batch_norm == "train",
        )  # fmt: skip
