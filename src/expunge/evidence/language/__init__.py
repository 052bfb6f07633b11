"""How language models are measured: what they say about right, wrong and reworded answers, and the numbers made of it."""

from expunge.evidence.language.evaluation import LanguageEvaluation as LanguageEvaluation
from expunge.evidence.language.evaluation import evaluate as evaluate
from expunge.evidence.language.evaluation import wordings as wordings
