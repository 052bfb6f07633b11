"""What speaks against a method before it runs: kinds, task, missing data, capacity, and the budget that is left."""

from __future__ import annotations

from expunge.core.errors import RefusedError
from expunge.core.method import Context, Estimate, Method, Refusal, Settling
from expunge.core.task import runs_on
from expunge.methods import registry
from expunge.planning.promises import hollow_promise


def check(method: Method, context: Context, kinds: tuple[str, ...]) -> Estimate:
    """The method's estimate, or RefusedError with the reason and the methods that could serve."""
    says = answer(method, context, kinds)
    if isinstance(says, Refusal):
        others = [name for name in eligible(context, kinds) if name != method.name]
        raise RefusedError(f"{says} Eligible here: {', '.join(others) or 'none'}.")
    return says


def answer(method: Method, context: Context, kinds: tuple[str, ...]) -> Estimate | Refusal:
    """What the method says, or what speaks against it: kinds, data, capacity, and the budget left."""
    if isinstance(method, Settling):
        method = method.settled(context.trained, context.deletion)
    says = refusal_of(method, context, kinds) or method.check(context)
    if isinstance(says, Estimate):
        promised = says.promises.get("epsilon")
        budget = context.trained.budget
        limit = budget.epsilon if budget else None
        if promised is not None and limit is not None and promised > limit * (1 + 1e-9):
            return Refusal(
                f"All releases together would come to epsilon {promised:.4g}, above the published {limit:g}.",
                "Retrain: that resets what was spent. For an experiment beside the release publish the model anew.",
            )
        if reason := hollow_promise(says.promises, 0 if context.trained.data is None else len(context.trained.data)):
            return Refusal(reason, "A published delta stays: train and publish anew.")
    return says


def refusal_of(method: Method, context: Context, kinds: tuple[str, ...]) -> Refusal | None:
    """What can be refused without asking the method: kinds, task, missing data, capacity."""
    can = method.capabilities
    if unserved := [kind for kind in kinds if kind not in can.kinds]:
        return Refusal(
            f"{method.name} does not serve requests of kind {', '.join(unserved)}; it serves {', '.join(can.kinds)}."
        )
    if not runs_on(can.tasks, context.task):
        return Refusal(f"{method.name} runs on {', '.join(can.tasks)}, not on {context.task.name}.")
    if "retained data" in can.needs and context.deletion.after is None:
        return Refusal(f"{method.name} needs the retained data, which are unknown here.")
    learns = {"forgotten data", "written items"} & {*can.needs}
    if not context.deletion.member and (can.certified or not learns) and can.effect != "none":
        return Refusal(
            f"{method.name} forgets rows that the model was trained on; authored material is none of them.",
            "Use a method that learns from the material itself.",
        )
    budget = context.trained.budget
    if budget and "budget" in can.needs:
        removed = len(context.trained.removed | context.deletion.ids)
        if removed > budget.capacity:
            return Refusal(
                f"The request brings the records removed to {removed}; the published capacity is {budget.capacity}.",
                "Noise was fixed for that many: retrain, which resets it.",
            )
    return None


def eligible(context: Context, kinds: tuple[str, ...]) -> list[str]:
    """Names of methods whose defaults could serve this request, controls left out."""
    names = []
    for name in registry.targets():
        method = registry.load(name)()
        if method.capabilities.effect != "none" and isinstance(answer(method, context, kinds), Estimate):
            names.append(name)
    return names
