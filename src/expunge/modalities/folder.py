"""What a modality takes from the modules of its own folder, imported only when something is computed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a job file is checked before anything heavy is imported
    from expunge.core.data import Deletion
    from expunge.core.task import Task
    from expunge.evidence.comparison import Score
    from expunge.evidence.membership import MembershipAttack
    from expunge.modalities.benchmark import Benchmark
    from expunge.screening.result import ScreeningResult


class OfFolder:
    """A modality whose package holds ``benchmark`` (``BENCHMARK``) and ``readings`` (``ATTACKS``, ``read``, ``score``).

    See :class:`~expunge.modalities.modality.Modality` for what the members are for.
    """

    @property
    def benchmark(self) -> Benchmark:
        """``BENCHMARK`` of the folder's ``benchmark``."""
        return self._module("benchmark").BENCHMARK

    @property
    def attacks(self) -> Sequence[MembershipAttack]:
        """``ATTACKS`` of the folder's ``readings``."""
        return self._module("readings").ATTACKS

    def read(self, task: Task, tensors: Mapping[str, Any], sets: Mapping[str, Any]) -> Any:
        """``read`` of the folder's ``readings``."""
        return self._module("readings").read(task, tensors, sets)

    def score(self, readings: Any, retrained: Any = None) -> list[Score]:
        """``score`` of the folder's ``readings``, of one model; ``retrained`` is not used."""
        return self._module("readings").score(readings)

    def screen(self, job: Any, opened: Any, asked: Any, deletion: Deletion) -> ScreeningResult:
        """How broad the request is: nothing else is known of requests without words."""
        from expunge.screening.result import screen_breadth

        return screen_breadth(asked.request, deletion)

    def _module(self, name: str) -> ModuleType:
        return importlib.import_module(f"{type(self).__module__}.{name}")
