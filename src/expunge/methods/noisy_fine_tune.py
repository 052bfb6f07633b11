"""Clip the model, then descend on retained batches with clipped gradients and noise in every step, then recover.

Koloskova et al. 2025 (arXiv 2506.06985), gradient-clipping variant. The accounting is derived in
``privacy.noisy_fine_tuning`` and not taken from the released code, whose conversion to epsilon misses the Rényi order.

Formal guarantee: (epsilon, delta) unlearn-indistinguishability for any loss and any number of forgotten records: the
clipping norms are enforced, and nothing about the loss is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from expunge.core.allowed import Count, NonNegative, Positive, Probability, Whole, must_be_allowed
from expunge.core.certificate import Claim
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Estimate, NoiseSource, Paper, Refusal, SmallScale, Unlearned
from expunge.core.trained import Artifact, Budget
from expunge.descent.streams import mixed_seed
from expunge.methods.release import noisy_once
from expunge.methods.stages import stage_once
from expunge.tasks.seeds import seed_global
from expunge.training.descent import split
from expunge.training.optimizers import SGD
from expunge.training.recipes import run_epochs


@dataclass(frozen=True, kw_only=True)
class NoisyFineTune:
    """Noisy fine-tuning with clipping.

    Attributes:
        epsilon, delta: the target; sigma follows from it and from the settings alone, never from the request.
        clip_model: C0, norm to which the whole model is clipped first. 1: our choice, within the released settings.
        clip: C1, norm to which each batch's mean gradient is clipped. 1: our choice, as above.
        lr: eta. 0.01: our choice, as above.
        l2: lambda, decay inside the noisy steps. 10: our choice, as above; it makes the noise forget its own past.
        steps: T. 50: our choice.
        batch_size: rows a noisy step reads. 128: UNKNOWN in the paper's tables.
        recovery_epochs, recovery_lr: noiseless fine-tuning afterwards, free of privacy cost. 0.1: the released code's; 20
            epochs: ours.
    """

    name: ClassVar[str] = "noisy_fine_tune"
    capabilities: ClassVar[Capabilities] = Capabilities(needs=("retained data", "untied weights"), certified=True)
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("Certified unlearning for neural networks", "Koloskova et al., ICML 2025", "2506.06985"),
    )
    small: ClassVar[SmallScale] = SmallScale(quick={"steps": 5, "recovery_epochs": 1, "batch_size": 16})
    epsilon: Positive = 1.0
    delta: Probability = 1e-5
    clip_model: Positive = 1.0
    clip: Positive = 1.0
    lr: Positive = 0.01
    l2: NonNegative = 10.0
    steps: Count = 50
    batch_size: Count = 128
    recovery_epochs: Whole = 20
    recovery_lr: Positive = 0.1

    def __post_init__(self):
        must_be_allowed(self)
        if not self.lr * self.l2 < 1:
            raise InputError(f"Expected lr * l2 in [0, 1), so that steps contract; got {self.lr * self.l2:g}.")

    def check(self, context: Context) -> Estimate | Refusal:
        """Runs on any model whose release is its trainable weights, while all releases together keep the promise."""
        from expunge.privacy.certify import promise

        try:
            split(context.task.build(), {})
        except InputError as error:  # tied weights
            return Refusal(str(error))
        trained, rows = context.trained, len(context.deletion.after)
        published = trained.budget if trained.budget and trained.budget.epsilon is not None else None
        own = Budget(self.epsilon, published.delta if published else self.delta, 1, self.sigma)
        promises = promise("noisy-fine-tuning", self._parameters(), trained.facts, own, trained.spent)
        if published is None and promises["epsilon"] > self.epsilon * (1 + 1e-9):
            return Refusal(
                f"This release and the {len(trained.spent)} before it would together come to epsilon "
                f"{promises['epsilon']:.4g}, above {self.epsilon:g}.",
                "Publish a budget for all of them first, or retrain, which resets what was spent.",
            )
        evaluations = self.steps * min(self.batch_size, rows) + self.recovery_epochs * rows
        return Estimate(evaluations, None, {**promises, "sigma": self.sigma})

    def _parameters(self) -> dict[str, Any]:
        """The bound's inputs: settings alone."""
        names = ("epsilon", "delta", "clip_model", "clip", "lr", "l2", "steps")
        return {name: getattr(self, name) for name in names}

    @property
    def sigma(self) -> float:
        """Noise per step for the target."""
        from expunge.privacy.noisy_fine_tuning import sigma_for

        return sigma_for(
            epsilon=self.epsilon, delta=self.delta, clip_model=self.clip_model, clip=self.clip, lr=self.lr, l2=self.l2,
            steps=self.steps,
        )  # fmt: skip

    def run(self, context: Context) -> Unlearned:
        """Steps 1 to 3 of ``privacy.noisy_fine_tuning``."""
        task, trained, after = context.task, context.trained, context.deletion.after
        sigma = self.sigma
        model = task.build()

        def noisy(source: NoiseSource) -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(context.generator_seed)
            batch = task.batch(after)
            moved, fixed = split(model, trained.artifact.tensors)
            moved = _clipped(moved, self.clip_model)  # 1. x_0 = clip_{C0}(theta)
            for done in range(1, self.steps + 1):  # 2. clipped, noisy steps on retained batches
                index = torch.randperm(len(after), generator=generator)[: self.batch_size]
                leaves = {name: tensor.detach().requires_grad_() for name, tensor in moved.items()}
                seed_global(mixed_seed(context.generator_seed, "layers", done), batch.device)  # dropout draws from it
                loss = task.losses(model, {**leaves, **fixed}, batch.take(index)).mean()
                # zero for a weight that nothing passes through, as the last layer of LLaVA's vision tower
                slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
                gradients = dict(zip(leaves, slopes, strict=True))
                gradients = _clipped(gradients, self.clip)
                stepped = {n: x - self.lr * (gradients[n] + self.l2 * x) for n, x in moved.items()}
                moved, _ = source.add(stepped, sigma)
                context.watch("noisy steps", done, self.steps)
            return {**moved, **fixed}

        # The noisy weights are written ahead: a run that is started again goes on from them and draws nothing anew.
        certified = noisy_once(context.journal, "release", context.noise, noisy)

        final = stage_once(context.journal, "recovered", lambda: self.recover(context, certified))
        parameters = {**self._parameters(), "sigma": sigma}
        return Unlearned(
            views={"model": Artifact(final)},
            claim=Claim("noisy-fine-tuning", parameters, {}, after.digest),
            state=final,
            purged=("iterates of training, which hold the removed records",) if trained.trail else (),
            gradient_evaluations=self.steps * min(self.batch_size, len(after)) + self.recovery_epochs * len(after),
            details={"sigma_per_step": sigma},
        )

    def recover(self, context: Context, certified: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Step 3: noiseless fine-tuning on the retained rows, post-processing of ``certified``; deterministic."""
        if not self.recovery_epochs:
            return dict(certified)
        task = context.task
        fresh = task.build(certified)
        optimizer = SGD([p for p in fresh.parameters() if p.requires_grad], self.recovery_lr)
        run_epochs(
            task, fresh, context.deletion.after, optimizer, epochs=self.recovery_epochs, batch_size=self.batch_size,
            seed=context.generator_seed, watch=context.watch, stage="recover",
        )  # fmt: skip
        return dict(fresh.state_dict())


def _clipped(tensors: dict[str, Tensor], radius: float) -> dict[str, Tensor]:
    """All tensors scaled together to norm at most ``radius``."""
    norm = math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))
    # the float product may round upwards: aim an ulp inside the ball
    scale = min(1.0, radius / norm * (1 - 1e-6)) if norm > radius else 1.0
    return {name: tensor * scale for name, tensor in tensors.items()}
