"""Class-conditional diffusion of images: the noise in an image is predicted for its class, or for any class.

An image's loss depends on a level of noise and on the noise itself. In training mode both are drawn anew from the global random
state, as dropout is, and one label in ten is hidden. In evaluation mode they follow from the image's id alone: the loss is a
function of weights and image, whichever batch the image stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.on_disk import whole
from expunge.core.task import Outputs
from expunge.data.rows import Rows
from expunge.tasks.classification import its_own, must_name_each_weight_once, same_architecture
from expunge.tasks.diffusion.sampling import Sampler, sampled
from expunge.tasks.diffusion.schedule import NoiseSchedule
from expunge.tasks.seeds import seed_global
from expunge.tasks.wrappers import unwrapped

_SEEDS = 1_000_003  # of one id: more than a loss has levels


@dataclass(frozen=True)
class ImageDiffusion:
    """Runs ``factory()``'s modules ``(noisy images, levels, conditions) → noise`` on images in [0, 1] with labels.

    Attributes:
        factory: makes a fresh module; called under a forked random state.
        shape: (c, h, w) of the images.
        classes: how many labels there are; condition ``classes`` stands for "any class".
        schedule: levels of noise.
        hidden: share of labels that training hides, so that the model also learns "any class": 0.1, as classifier-free
            guidance has it (arXiv 2207.12598); 0: never, and there is no guidance.
        sampler: how images are drawn.
        images: drawn of each class when a model is measured; 100, our choice.
        draws: levels at which a loss is taken in evaluation mode, evenly spaced; 4, our choice.
        dtype, device: floating-point type of weights and images, and where they are placed.
    """

    factory: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    classes: int
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)
    hidden: float = 0.1
    sampler: Sampler = field(default_factory=Sampler)
    images: int = 100
    draws: int = 4
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    name: str = "diffusion"

    def __post_init__(self):
        if not 0 <= self.hidden < 1 or not 1 <= self.draws <= self.schedule.levels:
            raise InputError(
                f"Expected a share of hidden labels in [0, 1) and 1 to {self.schedule.levels} draws; got {self.hidden} and "
                f"{self.draws}."
            )
        if self.sampler.guidance and not self.hidden:
            raise InputError(
                f"Guidance of {self.sampler.guidance} needs a model that also knows the condition “any class”; with "
                "hidden: 0 it is never trained. Set guidance: 0, or hide some labels in training."
            )

    @property
    def any_class(self) -> int:
        """The condition that stands for no class in particular."""
        return self.classes

    def build(self, tensors: Mapping[str, Tensor] | None = None, *, seed: int = 0) -> nn.Module:
        """A fresh module, initialised from ``seed`` or holding ``tensors``.

        Raises:
            InputError: if ``tensors`` belong to another architecture (another number of channels, for example).
        """
        with torch.random.fork_rng(devices=[]):
            seed_global(seed, self.device)
            # not the method: that of diffusers' networks warns of every cast
            model = nn.Module.to(self.factory(), self.device, self.dtype)
        if tensors is not None:
            tensors, _ = unwrapped(model.state_dict().keys(), tensors)
            same_architecture(model.state_dict(), tensors)
            model.load_state_dict({name: tensor.to(self.device) for name, tensor in tensors.items()})
        return model

    @staticmethod
    def released(model: nn.Module) -> dict[str, Tensor]:
        """Weights and buffers by name; the tensors themselves."""
        return dict(model.state_dict())

    def batch(self, data: Rows, index: Tensor | None = None) -> Batch:
        """Images in [-1, 1] as ``x`` (b, c, h, w), labels ``y`` (b,), and the ``id`` (b,) that fixed noise follows from."""
        ids = torch.from_numpy(data.ids)
        x, y = whole(data.x), data.y
        if index is not None:
            x, y, ids = x[index], y[index], ids[index.cpu()]
        return Batch({
            "x": x.to(self.device, self.dtype) * 2 - 1, "y": y.to(self.device), "id": ids.to(self.device),
        })  # fmt: skip

    def losses(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean squared error of the predicted noise, (b,): DDPM's simple loss (arXiv 2006.11239, eq. 14)."""
        if model.training:
            level, noise = self.drawn(batch)
            return self.errors(model, params, batch["x"], level, noise, self.sometimes_hidden(batch["y"]))
        parts = [self.errors(model, params, batch["x"], *each, batch["y"]) for each in self.fixed(batch)]
        return torch.stack(parts).mean(0)

    def drawn(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Levels (b,) and noise (b, c, h, w) from the global random state: those of a training step."""
        level = torch.randint(self.schedule.levels, (len(batch),), device=batch.device)
        return level, torch.randn_like(batch["x"])

    def sometimes_hidden(self, y: Tensor) -> Tensor:
        """Labels of which a share :attr:`hidden` is replaced by "any class", drawn from the global random state."""
        if not self.hidden:
            return y
        return torch.where(torch.rand(y.shape, device=y.device) < self.hidden, self.any_class, y)

    def fixed(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Levels and noise of each draw in evaluation mode: the same for an id whatever stands beside it."""
        ids, x = batch["id"].tolist(), batch["x"]
        pairs = []
        for draw in range(self.draws):
            level = int((draw + 0.5) * self.schedule.levels / self.draws)
            seeds = (each * _SEEDS + draw for each in ids)
            noise = torch.stack(
                [torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(s % 2**63)) for s in seeds]
            )
            pairs.append((torch.full((len(ids),), level, device=x.device), noise.to(x)))
        return pairs

    def errors(
        self, model: nn.Module, params: Mapping[str, Tensor], x: Tensor, level: Tensor, noise: Tensor, y: Tensor
    ) -> Tensor:
        """Mean squared error of the noise that is predicted for images ``x`` under conditions ``y``, (b,)."""
        guess = self.predicted(model, params, self.schedule.noised(x, level, noise), level, y)
        return (guess - noise).square().flatten(1).mean(1)

    def predicted(
        self, model: nn.Module, params: Mapping[str, Tensor], noisy: Tensor, level: Tensor, y: Tensor
    ) -> Tensor:
        """The noise in ``noisy`` (b, c, h, w) at levels (b,) under conditions ``y`` (b,), as the model has it."""
        inputs = (noisy, level, y)
        output = model(*inputs) if its_own(model, params) else functional_call(model, dict(params), inputs)
        return noise_of(output)

    def outputs(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Outputs:
        """How well each class explains an image, (b, classes): minus the squared error of its noise, summed over pixels.

        The diffusion classifier (arXiv 2303.16203) on the levels and noise of evaluation mode; one pass for each class
        and draw.
        """
        x, y = batch["x"], batch["y"]
        total = torch.zeros(len(batch), self.classes, device=x.device, dtype=x.dtype)
        for level, noise in self.fixed(batch):
            for label in range(self.classes):
                total[:, label] -= self.errors(model, params, x, level, noise, torch.full_like(y, label))
        return Outputs(total * x[0].numel() / self.draws)

    def draw(self, model: nn.Module, params: Mapping[str, Tensor], labels: Tensor, seed: int) -> Tensor:
        """One image in [0, 1] for each of ``labels`` (n,), (n, c, h, w); a function of weights, labels and seed."""
        return sampled(self, model, params, labels, seed)

    def files(self) -> dict[str, bytes]:
        """Nothing: the module is the user's own code."""
        return {}

    def check(self, data: Rows) -> None:
        """Whether these are images of the task's shape in [0, 1], and the module predicts noise for each of their classes.

        Raises:
            InputError: with what does not fit.
        """
        model = self.build().eval()
        must_name_each_weight_once(model)
        must_be_images(data, self.shape)
        if data.classes > self.classes:
            raise InputError(
                f"Expected labels below {self.classes}, the number of classes that the model is made for; the data hold label "
                f"{data.classes - 1}. Change classes, or drop those images."
            )
        self._must_predict(model, self.batch(data).take(slice(2)))

    def _must_predict(self, model: nn.Module, batch: Batch) -> None:
        """One pass for the largest class, and one for "any class" where it is used."""
        level = torch.zeros(len(batch), dtype=torch.long, device=batch.device)
        for label in [self.classes - 1] + ([self.any_class] if self.hidden else []):
            what = "any class" if label == self.any_class else f"class {label}"
            try:
                with torch.no_grad():
                    guess = self.predicted(
                        model, dict(model.named_parameters()), batch["x"], level, torch.full_like(batch["y"], label)
                    )
            except InputError:
                raise
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                raise InputError(
                    f"The model does not predict noise for images {self.shape} under the condition {label} ({what}): {error}. "
                    f"It is called as model(images, levels, conditions) with conditions 0 to {self.classes - 1} for classes"
                    f"{f' and {self.any_class} for “any class”, which guidance needs' if self.hidden else ''}."
                ) from error
            if guess.shape != batch["x"].shape:
                raise InputError(
                    f"Expected noise of the shape of the images, {tuple(batch['x'].shape)}; the model gives "
                    f"{tuple(guess.shape)}."
                )


def noise_of(output: Any) -> Tensor:
    """The noise in what a module returns: a tensor itself, or the member ``sample`` of an output of ``diffusers``.

    Raises:
        InputError: for anything else.
    """
    noise = output if isinstance(output, Tensor) else getattr(output, "sample", None)
    if not isinstance(noise, Tensor):
        raise InputError(
            f"Expected the model to return noise of the shape of its images, or an object with .sample; it returns "
            f"{type(output).__name__}."
        )
    return noise


def must_be_images(data: Rows, shape: tuple[int, int, int]) -> None:
    """Raise InputError unless ``data`` hold images of ``shape`` with pixels in [0, 1]."""
    if tuple(data.x.shape[1:]) != shape:
        raise InputError(
            f"Expected images of shape (channels, height, width) = {shape}; the data hold {tuple(data.x.shape[1:])}."
        )
    x = whole(data.x)
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        raise InputError(
            f"Expected pixels from 0 to 1; the data hold values from {low:.3g} to {high:.3g}. Divide bytes by 255, and do not "
            "standardise: what a diffusion model draws is an image again."
        )
