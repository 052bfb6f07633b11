"""Make the weights of the digits world that come with the package.

``python -m expunge.modalities.vision_language.make_weights FOLDER`` trains two models from one seed, the original and one
without the pictures of sevens; some minutes each on one core. A model that does not know its world well enough is not written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file

from expunge.core.data import Ids
from expunge.core.task import Autoregressive
from expunge.data.digits_world import digits_world
from expunge.data.picture_world import CONCEPT
from expunge.data.texts import Texts
from expunge.modalities.vision_language.world_scores import Scene, world_scores
from expunge.tasks.micro_vision_language import micro_vision_language
from expunge.training.pictures import PictureTraining
from expunge.training.shipped import name_of

SEVEN = "seven"
GATES = {  # least shares of the original; all but the first two of gold as well
    "recognition_unseen": 0.95, "yes_no": 0.95, "facts": 1.0, "facts_others": 1.0, "others": 0.88, "yes_others": 0.95,
    "no_others": 0.95,
}  # fmt: skip
GOLD = {name: least for name, least in GATES.items() if name not in ("recognition_unseen", "yes_no")}


def without_concept(data: Texts, name: str = SEVEN) -> Texts:
    """The training records without the pictures of a concept; facts about it stay."""
    return data.without(Ids.rows(data.ids[data.columns[CONCEPT] == name]))


def scene() -> Scene:
    """All held-out pictures."""
    world = digits_world()
    shown = next(record for record in world.train.records if record.get("shows") == SEVEN)
    return Scene.of(world, [SEVEN], [shown], each=len(world.held_out))


def make(folder: Path, which: str) -> dict[str, float]:
    """Train ``original`` or ``gold``, write it into ``folder`` under its name, and return what it scores.

    Raises:
        ValueError: for a model below a gate; nothing is written.
    """
    task, data = micro_vision_language(digits_world().vocabulary), digits_world().train
    data = data if which == "original" else without_concept(data)
    recipe = PictureTraining()
    learner = cast(Autoregressive, task)  # its factory is a field, which type checkers take for a method
    made = recipe.train(
        learner, data, watch=lambda stage, done, total: print(which, stage, done, total, file=sys.stderr)
    )
    tensors = made.artifact.tensors
    found, _ = world_scores(task, tensors, scene())
    gates = GATES if which == "original" else GOLD
    if low := {name: found[name] for name, least in gates.items() if found[name] < least}:
        raise ValueError(f"The {which} model is below its gates {gates} in {low}; all it scores: {found}.")
    if which == "gold" and found["recognition_unseen"] > 0.05:
        raise ValueError(
            f"The gold model names {found['recognition_unseen']:.2f} of the pictures that it was never shown."
        )
    name = name_of(learner, data, recipe, 0)
    save_file(
        {key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors", {"model": which}
    )
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in ("original", "gold"):
        print(each, make(Path(sys.argv[1]), each))
