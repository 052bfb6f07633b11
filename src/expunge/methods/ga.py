"""Gradient ascent on the answers of forgotten records (language models).

Formal guarantee: none; it takes the rest of the language with it. Measured by us on a model of 250,000 weights: after 150
steps .035 of the retained questions are answered, where NPO beside a retain loss keeps .98.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.core.method import Capabilities, Context, Paper
from expunge.descent.work import Objective
from expunge.methods.by_language import LanguageMethod
from expunge.methods.grad_diff import GradDiff


@dataclass(frozen=True, kw_only=True)
class GA(LanguageMethod):
    """-N on forgotten answers, nothing else; AdamW, unlike ``gradient_ascent``, whose settings are those of image papers."""

    name: ClassVar[str] = "ga"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "concept"), tasks=("language",), needs=("forgotten data",)
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Knowledge unlearning for mitigating privacy risks in language models",
            "Jang et al., ACL 2023",
            "2210.01504",
        ),
    )

    def objective(self, context: Context) -> Objective:
        """Up the token-mean loss: GradDiff's on forgotten answers, and no step asks for the other one."""
        return GradDiff()
