"""What a training run is known to have done, and how it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.data import ids_of
from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.core.trained import Fact, Origin
from expunge.data.partition import Partition
from expunge.data.rows import Rows, as_said
from expunge.tasks.classification import Classification
from expunge.tasks.exact_types import holds_no_values, plain_softmax_head
from expunge.tasks.graphs.dropout import Drops
from expunge.tasks.networks import SoftmaxHead
from expunge.training.descent import Step, trainable

_NORMS = (nn.modules.batchnorm._BatchNorm,)
_DROPOUTS = (nn.modules.dropout._DropoutNd, nn.AlphaDropout, Drops)


def enforced(value: Any, note: str = "the loop does nothing else") -> Fact:
    """A fact that the code that ran made true."""
    return Fact(value, Origin.ENFORCED, note)


def declared(value: Any, note: str = "declared by the user") -> Fact:
    """A fact that the user asserts."""
    return Fact(value, Origin.DECLARED, note)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether rows of a batch depend on one another in training."""
    return any(isinstance(module, _NORMS) for module in model.modules())


def inspect(model: nn.Module) -> dict[str, Fact]:
    """Facts that the module itself shows: batch normalisation, active dropout."""
    modules = list(model.modules())
    dropout = any(isinstance(module, _DROPOUTS) and module.p > 0 for module in modules)
    note = "read from the module tree"
    return {
        "batch_norm": enforced(has_batch_norm(model), note),
        "dropout": enforced(dropout, note),
    }


def buffers_moved(model: nn.Module, iterates: Sequence[Mapping[str, Tensor]]) -> dict[str, Fact]:
    """Whether something besides trainable weights changed in training and would be published without noise."""
    names = set(trainable(model))
    moved = any(
        not torch.equal(iterates[0][name], later[name]) for later in iterates for name in later if name not in names
    )
    return {"buffers_moved": enforced(moved, "compared with the start")}


def full_batch(step: Step, steps: int, rows: int) -> dict[str, Fact]:
    """Facts of ``training.descent.descend``: it does just this."""
    return {
        "optimizer": enforced("gradient descent"),
        "batch": enforced("full"),
        "schedule": enforced("constant"),
        "momentum": enforced(0.0),
        "decay_outside_loss": enforced(0.0),
        "augmentation": enforced(False),
        "selection": enforced("fixed", "the number of steps was fixed before the first"),
        "lr": enforced(step.lr),
        "l2": enforced(step.l2),
        "clip": enforced(step.clip),
        "steps": enforced(steps),
        "rows": enforced(rows),
    }


def start_fact(task: Task, start: Mapping[str, Tensor], seed: int) -> Fact:
    """Whether training began with weights that no row has influenced: enforced only where our own initialiser made them.

    Compared by value, bit for bit, with what :mod:`expunge.tasks.initial` makes of the seed: weights that a factory loaded,
    or computed from rows, are no such weights whatever the factory is called.
    """
    expected = task.seeded(seed) if type(task) is Classification else None
    if expected is None or expected.keys() != start.keys():
        expected = {"": torch.empty(0)}
    if all(name in start and torch.equal(tensor.cpu(), start[name].cpu()) for name, tensor in expected.items()):
        return enforced("independent", "all weights and buffers are what expunge's own initialiser makes of the seed")
    return declared("independent", "the model's own code made them; that it looked at no row is its author's word")


def model_code(task: Task, model: nn.Module) -> Fact:
    """Whether only code of expunge and PyTorch computes anything, with settings that hold no values of rows.

    Other code, a hook, an attribute of somebody's own or a number among the settings may hold values that no tensor shows.
    """
    ours = type(task).__module__.startswith("expunge.tasks.")
    plain = ours and is_dataclass(task) and vars(task).keys() <= {f.name for f in fields(task)}
    others = sorted(
        {
            f"{type(module).__module__}.{type(module).__qualname__}"
            for module in model.modules()
            if not holds_no_values(module)
        }
    )
    if plain and not others:
        return enforced(
            True, "every module and the task are expunge's or PyTorch's own, without hooks or numbers of choice"
        )
    what = ", ".join(others[:3]) or f"{type(task).__module__}.{type(task).__qualname__}"
    return declared(True, f"the code of {what}, its hooks, its attributes and its settings are their author's word")


def proved_constants(task: Task, model: nn.Module, step: Step) -> dict[str, Fact]:
    """Constants that follow from the module's form; empty where they do not.

    For a :class:`~expunge.tasks.networks.SoftmaxHead` under :class:`~expunge.tasks.classification.Classification`, both by
    their exact types and without hooks or parametrisations, and without clipping: G, L and strong convexity from its radius
    (``privacy.constants``). A subclass may compute anything: for it nothing is proved. With clipping: G = C enforced; a
    clipped convex gradient need not be the gradient of a convex function, so convexity is out whatever the user declares.
    """
    if step.clip is not None:
        return {"gradient_bound": enforced(step.clip, "each row's gradient is clipped"), "convex": enforced(False)}
    if not plain_softmax_head(task, model):
        return {}
    assert isinstance(model, SoftmaxHead)
    from expunge.privacy.constants import softmax_head

    constants = softmax_head(model.radius, step.l2, bias=model.linear.bias is not None)
    fact = lambda value, note: Fact(value, Origin.PROVED, note)  # noqa: E731
    return {
        "gradient_bound": fact(constants.gradient_bound, "sqrt(2) R: rows are projected on the ball of radius R"),
        "smoothness": fact(constants.smoothness, "R²/2 + lambda"),
        "strong_convexity": fact(step.l2, "lambda of the regulariser"),
        "convex": fact(True, "cross-entropy of a linear model"),
        "hessian_lipschitz": fact(constants.hessian_lipschitz, constants.formulas["hessian_lipschitz"]),
        "objective": fact("softmax head", "linear model under cross-entropy"),
    }


# Constants of a loss that a user may vouch for; a bound that rests on one is certified under declared constants.
DECLARABLE = (
    "smoothness",
    "gradient_bound",
    "gradient_difference",
    "convex",
    "strong_convexity",
    "hessian_lipschitz",
)


def user_constants(values: Mapping[str, float]) -> dict[str, Fact]:
    """Constants that the user declares, among :data:`DECLARABLE`; anything else is recorded and not declared.

    ``gradient_difference`` (how far two rows' gradients can be apart at one point) stands in where no uniform bound of a
    row's gradient exists: only differences between rows enter the bounds (``privacy.sensitivity.tight``).

    Raises:
        InputError: on an unknown name.
    """
    if unknown := sorted(values.keys() - set(DECLARABLE)):
        raise InputError(f"Expected constants among {', '.join(DECLARABLE)}; got {', '.join(unknown)}.")
    return {name: declared(value) for name, value in values.items()}


TRAINING_IDS = "training_ids"  # name of the fact that says which rows training was given
OWNERS = "owners"  # name of the fact that says whose each row is
RECIPE = "recipe"  # name of the fact that holds the digest of all settings, where they may name somebody
RESIDUAL = "residual"  # name of the fact that says where training stopped: the norm of the mean objective's gradient


def prepared(data: Any) -> dict[str, Fact]:
    """What the data say of themselves: how rows were prepared, and the digest of the ids of all of them.

    Only rows that are as one of expunge's readers made them (:meth:`expunge.data.rows.Rows.prepared`) can enforce how they
    were prepared; of other kinds of data, and of rows that were changed since, it is somebody's word. A rule that needs the
    preparation is violated where nobody recorded it. The digest is what ``plan`` asks for, so that nobody unlearns with
    another split than the model was trained on.
    """
    said = getattr(data, "preprocessing", None)
    if said is not None:
        said = Rows.prepared(data) if isinstance(data, Rows) else as_said(said)
    if said is not None and isinstance(data, Partition) and data.drawn:
        said = as_said(said, "whose each row is was drawn from all rows: without some of them it would be another draw")
    facts = {} if said is None else {"preprocessing": said}
    if (ids := ids_of(data)) is not None:
        facts[TRAINING_IDS] = enforced(ids.digest, "digest of the ids of the rows that training was given")
    if isinstance(data, Rows) and data.columns:
        facts[OWNERS] = enforced(data.owned(), "of each column that says whose a row is, a digest")
    return facts
