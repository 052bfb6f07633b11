"""One of the processes of some runs, for test_processes.py: a line of JSON for each, losses and weights or a refusal.

Arguments: the settings of each run as a JSON list, and a folder for the journals of the first process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from expunge.core import journal as journals
from expunge.core.errors import ExpungeError
from expunge.core.journal import Journal
from expunge.core.method import InMemory
from expunge.descent import descend
from expunge.descent.guard import Guard
from expunge.descent.lora import LoRA
from expunge.descent.members import Member
from expunge.descent.optimizer import Dual, Shared
from expunge.descent.parameters import All
from expunge.descent.processes import processes
from expunge.descent.schedule import Interleave, Joint
from expunge.descent.work import Work
from expunge.methods import registry
from expunge.objectives.scope import SU

from .languages import work

ADAMW = Member("adamw", 1e-3, weight_decay=0.01)


class Counted:
    """A journal that knows how many stages were computed, not taken from it."""

    def __init__(self, journal: Any):
        self.journal, self.computed = journal, 0

    def once(self, name: str, compute: Callable[[], bytes]) -> bytes:
        def counted() -> bytes:
            self.computed += 1
            return compute()

        return self.journal.once(name, counted)


class Middle:
    """Likes the state of its third look most, and runs the model for it as any look does."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self, on: Work) -> float:
        with torch.no_grad():
            seen = float(on.task.losses(on.model, on.params, on.task.batch(on.deletion.forget)).mean())
        self.looks += 1
        return seen / 1000 - abs(self.looks - 3)


def run(
    kind: str, steps: int, su: float, dual: bool, retain: str = "nll", batch: int = 4, folder: Path | None = None,
    lora: bool = False,
) -> Any:  # fmt: skip
    """A few steps, in stages of two; an adapter's best state is kept, and its middle one is the best."""
    torch.set_num_threads(1)
    journals.STEPS_PER_STAGE = 2
    on = replace(work(share=lora), processes=processes(), batch_size={"forget": batch, "retain": 8})
    objective: Any = registry.make(kind, {"retain": retain})
    method = descend.Descend(
        SU(objective, su) if su else objective,
        Interleave(1, 2, retain_steps=steps) if dual else Joint(steps=steps),
        Dual(ADAMW, ADAMW) if dual else Shared(ADAMW),
        LoRA({"r": 3}) if lora else All(),
        Guard(Middle(), 2) if lora else None,
        clip={"joint": 0.01},
    )
    journal = Counted(Journal(folder) if folder and on.processes.rank == 0 else InMemory())
    done = method.run(on, journal)
    weights = torch.cat([tensor.flatten() for tensor in done.tensors.values()])
    return {
        "losses": list(done.losses), "scores": list(done.scores), "weights": weights.tolist(), "stages": journal.computed,
        "state_bytes": done.state_bytes,
    }  # fmt: skip


def main() -> None:
    for settings in json.loads(sys.argv[1]):
        if "folder" in settings:
            settings["folder"] = Path(sys.argv[2]) / settings["folder"]
        try:
            print(json.dumps(run(**settings)), flush=True)
        except ExpungeError as error:
            print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    main()
