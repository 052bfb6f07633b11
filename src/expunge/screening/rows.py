"""How broad a request for rows is: it counts. Texts are looked at more closely, in ``screening.language``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from expunge.core.data import Deletion
from expunge.core.request import Request

# Share of the rows above which a person should confirm a request. Ours: 50 % is the largest share that papers on random
# forgetting evaluate (SalUn, arXiv 2310.12508, 10 % and 50 %), and beyond it more is forgotten than is left to learn from.
BROAD = 0.5


@dataclass(frozen=True)
class Screening:
    """What the look found.

    Attributes:
        flags: reasons for a second look, in words; empty when there are none.
        share: forgotten rows over all rows.
    """

    flags: tuple[str, ...]
    share: float

    @property
    def decision(self) -> dict[str, Any]:
        """The decision to record: grant, or quarantine for a person to look at."""
        if self.flags:
            return {"decision": "quarantine", "reason": "; ".join(self.flags), "by": "screening"}
        reason = f"screening found nothing unusual ({self.share:.2%} of the rows)"
        return {"decision": "grant", "reason": reason, "by": "screening"}


def screen(request: Request, deletion: Deletion) -> Screening:
    """Look at what a request comes to. Formal guarantee: none."""
    share = len(deletion.forget) / max(len(deletion.before), 1)
    flags = []
    if share > BROAD:
        flags.append(f"the request covers {share:.0%} of all rows, above {BROAD:.0%}")
    return Screening(tuple(flags), share)
