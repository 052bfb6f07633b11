"""One of the processes of a run, for test_processes.py: prints losses and a digest of weights as JSON, or what went wrong.

Arguments: the method's settings as JSON, and the folder of a journal of the first process, or nothing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from expunge.core.errors import ExpungeError
from expunge.core.journal import Journal
from expunge.core.method import InMemory
from expunge.descent import descend
from expunge.descent.members import Member
from expunge.descent.optimizer import Dual, Shared
from expunge.descent.processes import processes
from expunge.descent.schedule import Interleave, Joint
from expunge.objectives import language as losses
from expunge.objectives.scope import SU

from .languages import work

ADAMW = Member("adamw", 1e-3, weight_decay=0.01)


def run(kind: str, steps: int, su: float, dual: bool, retain: str = "nll", journal: Any = None) -> Any:
    """A few steps."""
    torch.set_num_threads(1)
    descend.STEPS_PER_STAGE = 2
    on = replace(work(), processes=processes(), batch_size={"forget": 4, "retain": 8})
    objective: Any = {"npo": losses.NPO, "wga": losses.WGA, "undial": losses.Undial, "rmu": losses.RMU}[kind]
    objective = objective(retain=retain, **({"layer": 0} if kind == "rmu" else {}))
    method = descend.Descend(
        SU(objective, su) if su else objective,
        Interleave(1, 2, retain_steps=steps) if dual else Joint(steps=steps),
        Dual(ADAMW, ADAMW) if dual else Shared(ADAMW),
        clip={"joint": 1.0},
    )
    done = method.run(on, journal if journal is not None else InMemory())
    weights = torch.cat([tensor.flatten() for tensor in done.tensors.values()])
    return {"losses": list(done.losses), "weights": weights.tolist()}


def main() -> None:
    settings = json.loads(sys.argv[1])
    try:
        if processes().rank == 0 and len(sys.argv) > 2:
            with Journal(Path(sys.argv[2])) as journal:
                print(json.dumps(run(**settings, journal=journal)), flush=True)
        else:
            print(json.dumps(run(**settings)), flush=True)
    except ExpungeError as error:
        print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    main()
