"""A user's own training loop, on record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.core.trained import Artifact, Fact, Origin, Trail, Trained
from expunge.data.rows import Rows
from expunge.training.descent import descend, trainable
from expunge.training.facts import TRAINING_IDS, declared
from expunge.training.flat import distance, flatten
from expunge.training.recipes import GradientDescent

# Relative distance below which a replayed run counts as the same: float32 rounding over thousands of steps.
AGREES = 1e-6
# What the replay can confirm about a loop.
LOOP = (
    "optimizer", "batch", "schedule", "momentum", "decay_outside_loss", "augmentation", "lr", "l2", "clip", "rows",
    TRAINING_IDS,
)  # fmt: skip


class Recorder:
    """Keeps the iterates of a loop that the user wrote, then checks by replay that the loop was what it says.

    Example::

        recorder = Recorder(task, rows, GradientDescent(steps=500, lr=0.5, l2=1e-3)).start(model)
        for _ in range(500):
            ...  # your full-batch step
            recorder.step(model)
        trained = recorder.finish(model)

    Args:
        task, data: the model's task, and the examples that the loop trains on.
        seed: that the start was drawn from; retraining uses it again.

    Attributes:
        recipe: what the loop is meant to be; its settings are the user's declaration until the replay confirms them.
    """

    def __init__(self, task: Task, data: Rows, recipe: GradientDescent, *, seed: int = 0):
        if type(recipe) is not GradientDescent:
            raise InputError(
                f"Expected a GradientDescent recipe for the recorder to replay; got a {type(recipe).__qualname__}, whose steps "
                "it does not know."
            )
        self.task, self.data, self.recipe, self.seed = task, data, recipe, seed
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._done = 0

    def start(self, model: nn.Module) -> Recorder:
        """Record theta_0; call it before the first step.

        Raises:
            InputError: if the model is of another architecture or number type than the task's.
        """
        first = _copy(model)
        for name, expected in self.task.build(first).state_dict().items():
            if first[name].dtype != expected.dtype:
                raise InputError(
                    f"Expected {name} in {expected.dtype}, as the task says; the model has {first[name].dtype}."
                )
        self._kept[0] = first
        return self

    def step(self, model: nn.Module) -> None:
        """Record that one step is done; call it after each."""
        if 0 not in self._kept:
            raise InputError(
                "Call recorder.start(model) before the first training step: the start is part of the trail."
            )
        self._done += 1
        if self._done in self.recipe.kept:
            self._kept[self._done] = _copy(model)

    def finish(self, model: nn.Module, *, replay: bool = True) -> Trained:
        """The trained model with its trail.

        With ``replay`` (one more training) our own loop descends from the recorded start. Where it arrives at the same
        iterates, the recorded settings are facts; where it does not, they are contradicted, and this raises.

        Raises:
            InputError: if the number of steps differs from the recipe's, or the replay arrives elsewhere.
        """
        if self._done != self.recipe.steps:
            raise InputError(f"Expected {self.recipe.steps} recorded steps, as the recipe says; got {self._done}.")
        final, recipe = _copy(model), self._recipe()
        fresh = self.task.build(final)
        facts = dict(recipe.facts(self.task, fresh, self.data, [self._kept[0], final], self.seed))
        if replay:
            self._confirm(fresh, final)
        note = "replayed: our loop arrives at the recorded iterates" if replay else "declared by the user; not replayed"
        for name in LOOP:
            facts[name] = Fact(facts[name].value, Origin.ENFORCED if replay else Origin.DECLARED, note)
        if recipe.start is not None:
            facts["start"] = declared("independent", "the user's own initialisation")
        facts["selection"] = declared("fixed", "the user says that the number of steps did not follow from results")
        trail = Trail(self._kept, recipe.steps, self.data.digest, len(self.data))
        return Trained(self.task, Artifact(final), self.data, recipe, trail, facts, seed=self.seed)

    def _recipe(self) -> GradientDescent:
        """The recipe with the recorded start, unless the seed gives the same one: retraining must begin there too."""
        drawn = self.recipe.initial(self.task, self.seed)
        if all(torch.equal(drawn[name].cpu(), tensor.cpu()) for name, tensor in self._kept[0].items()):
            return self.recipe
        return replace(self.recipe, start=self._kept[0], start_origin="public")

    def _confirm(self, model: nn.Module, final: Mapping[str, Tensor]) -> None:
        batch = self.task.batch(self.data)
        end, kept = descend(
            self.task, model, self._kept[0], batch, self.recipe.step, self.recipe.steps, keep=self.recipe.kept,
            stage="replay",
        )  # fmt: skip
        size = float(flatten(final, trainable(model)).double().norm()) or 1.0
        for at, recorded in [*self._kept.items(), (self.recipe.steps, final)]:
            apart = distance(recorded, kept.get(at, end))
            if apart > AGREES * size:
                raise InputError(
                    f"The recorded loop is not the recipe it names: at step {at} the replay is {apart:.3g} away. "
                    "Check the step size, the l2 term, that every row is in every step, and that nothing else moves."
                )


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
