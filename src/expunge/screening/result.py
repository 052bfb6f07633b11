"""What judging a request came to, for every kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from expunge.core.data import Data, Deletion
from expunge.core.digest import digest_json
from expunge.core.errors import InputError
from expunge.core.request import Request
from expunge.methods import registry
from expunge.screening.rows import screen


@dataclass(frozen=True)
class ScreeningResult:
    """What judging a request came to.

    Attributes:
        held: reasons for a person to decide, in words; empty where there are none.
        decision: to record.
        wording: forgotten examples as the method shall see them; ``None``: as they were trained on.
        retained: retained examples as the method shall see them; ``None``: as they are.
        scope: whether the scope term (SU) is to be turned on.
    """

    held: tuple[str, ...]
    decision: Mapping[str, Any]
    wording: Data | None = None
    retained: Data | None = None
    scope: bool = False

    @property
    def content(self) -> list[str]:
        """Digests of what a run depends on beside configuration and data; empty where screening changes nothing."""
        changed = [data.digest for data in (self.wording, self.retained) if data is not None]
        return [*changed, digest_json(dict(self.decision))] if "screening" in self.decision else changed

    def method(self, method: Any) -> Any:
        """``method``, with the scope term where screening asks for it.

        Raises:
            InputError: for a method that has none.
        """
        if not self.scope:
            return method
        if "su" not in registry.variants_of(method.name):
            raise InputError(
                f"request.on_screening: su needs a method with a scope term; {method.name} has none. Take one with a forget "
                "and a retain loss (npo, idk, grad_diff), or another action."
            )
        return method if method.su else replace(method, su=registry.VARIANTS["su"])


def screen_breadth(request: Request, deletion: Deletion) -> ScreeningResult:
    """How broad the request is: all that can be judged where examples carry no words of the request.

    Args:
        request: what is asked.
        deletion: what it comes to on the data.

    Formal guarantee: none.
    """
    found = screen(request, deletion)
    return ScreeningResult(found.flags, found.decision)
