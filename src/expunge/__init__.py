"""expunge: make a trained model forget, and show what is proven, what is measured and what is not known.

This file is the public interface. Importing it is cheap: each name below loads its module when it is first used, so that
``import expunge`` imports neither torch nor numpy. ``docs/api_reference.md`` describes every name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:  # the same list in the form that type checkers and editors read; a test compares the two
    from expunge import methods as methods
    from expunge.attacks.mixed import mixed_attack as mixed_attack
    from expunge.attacks.quantisation import quantisation_attack as quantisation_attack
    from expunge.attacks.relearning import relearning_attack as relearning_attack
    from expunge.attacks.stealthy import poison as poison
    from expunge.attacks.stealthy import trigger_prompts as trigger_prompts
    from expunge.core.batch import Batch as Batch
    from expunge.core.certificate import Assumption as Assumption
    from expunge.core.certificate import Certificate as Certificate
    from expunge.core.certificate import Claim as Claim
    from expunge.core.certificate import Verdict as Verdict
    from expunge.core.data import Data as Data
    from expunge.core.data import Deletion as Deletion
    from expunge.core.data import Ids as Ids
    from expunge.core.digest import digest_arrays as digest_arrays
    from expunge.core.errors import ExpungeError as ExpungeError
    from expunge.core.errors import ExtraMissingError as ExtraMissingError
    from expunge.core.errors import FailedError as FailedError
    from expunge.core.errors import HeldBackError as HeldBackError
    from expunge.core.errors import InputError as InputError
    from expunge.core.errors import RefusedError as RefusedError
    from expunge.core.errors import TamperedError as TamperedError
    from expunge.core.measurement import Check as Check
    from expunge.core.measurement import Evidence as Evidence
    from expunge.core.measurement import Measurement as Measurement
    from expunge.core.method import Capabilities as Capabilities
    from expunge.core.method import Context as Context
    from expunge.core.method import Estimate as Estimate
    from expunge.core.method import Outcome as Outcome
    from expunge.core.method import Paper as Paper
    from expunge.core.method import Ranges as Ranges
    from expunge.core.method import Refusal as Refusal
    from expunge.core.method import SmallScale as SmallScale
    from expunge.core.method import Unlearned as Unlearned
    from expunge.core.request import Kind as Kind
    from expunge.core.request import Request as Request
    from expunge.core.request import Target as Target
    from expunge.core.task import Outputs as Outputs
    from expunge.core.task import Task as Task
    from expunge.core.trained import Artifact as Artifact
    from expunge.core.trained import Budget as Budget
    from expunge.core.trained import Fact as Fact
    from expunge.core.trained import Origin as Origin
    from expunge.core.trained import Recipe as Recipe
    from expunge.core.trained import Trail as Trail
    from expunge.core.trained import Trained as Trained
    from expunge.data.arrays import read_arrays as read_arrays
    from expunge.data.cifar import cifar10 as cifar10
    from expunge.data.digits import digits as digits
    from expunge.data.heart import heart_disease as heart_disease
    from expunge.data.idx import fashion_mnist as fashion_mnist
    from expunge.data.idx import mnist as mnist
    from expunge.data.images import image_folder as image_folder
    from expunge.data.images import omniglot as omniglot
    from expunge.data.images import orl_faces as orl_faces
    from expunge.data.rows import Rows as Rows
    from expunge.data.tables import read_csv as read_csv
    from expunge.data.texts import Texts as Texts
    from expunge.data.texts import read_jsonl as read_jsonl
    from expunge.data.tofu import read_tofu as read_tofu
    from expunge.descent.descend import Descend as Descend
    from expunge.descent.optimizer import Shared as Shared
    from expunge.descent.parameters import Modules as Modules
    from expunge.descent.schedule import Passes as Passes
    from expunge.jobs.exclusion import exclude as exclude
    from expunge.jobs.exclusion import excluded as excluded
    from expunge.jobs.propagation import Descendant as Descendant
    from expunge.jobs.propagation import propagate as propagate
    from expunge.ledger import Ledger as Ledger
    from expunge.measuring import MeasureSettings as MeasureSettings
    from expunge.measuring import measure as measure
    from expunge.methods.by_descent import GradientMethod as GradientMethod
    from expunge.methods.by_descent import sgd as sgd
    from expunge.modalities.modality import Asked as Asked
    from expunge.modalities.modality import Modality as Modality
    from expunge.modalities.modality import Opened as Opened
    from expunge.modalities.settings import EvidenceSettings as EvidenceSettings
    from expunge.modalities.settings import Job as Job
    from expunge.modalities.settings import RequestSettings as RequestSettings
    from expunge.modalities.settings import Strict as Strict
    from expunge.objectives.supervised import Ascent as Ascent
    from expunge.planning import Plan as Plan
    from expunge.planning import adopt as adopt
    from expunge.planning import plan as plan
    from expunge.planning import publish as publish
    from expunge.planning import train as train
    from expunge.report.folder import write_report as write_report
    from expunge.report.verify import Verification as Verification
    from expunge.report.verify import verify_folder as verify_folder
    from expunge.screening.language import LanguageScreening as LanguageScreening
    from expunge.screening.language import screen_language as screen_language
    from expunge.screening.result import ScreeningResult as ScreeningResult
    from expunge.screening.result import screen_breadth as screen_breadth
    from expunge.tasks.classification import Classification as Classification
    from expunge.tasks.convolutional import cifar_resnet as cifar_resnet
    from expunge.tasks.convolutional import conv_bn_net as conv_bn_net
    from expunge.tasks.convolutional import resnet18 as resnet18
    from expunge.tasks.convolutional import small_cnn as small_cnn
    from expunge.tasks.language import Language as Language
    from expunge.tasks.micro_language import micro_language as micro_language
    from expunge.tasks.networks import SoftmaxHead as SoftmaxHead
    from expunge.tasks.networks import mlp as mlp
    from expunge.tasks.networks import perceptron as perceptron
    from expunge.tasks.pretrained import load_language_model as load_language_model
    from expunge.tasks.prompts import Prompts as Prompts
    from expunge.training.language import LanguageTraining as LanguageTraining
    from expunge.training.noisy import NoisyGradientDescent as NoisyGradientDescent
    from expunge.training.perturbed import PerturbedMinimiser as PerturbedMinimiser
    from expunge.training.recipes import GradientDescent as GradientDescent
    from expunge.training.recipes import Stochastic as Stochastic
    from expunge.training.recipes import UserFit as UserFit
    from expunge.training.recorder import Recorder as Recorder
    from expunge.training.scikit import downdate_ridge as downdate_ridge
    from expunge.training.scikit import from_sklearn as from_sklearn
    from expunge.training.scikit import to_sklearn as to_sklearn
    from expunge.training.store import load_trained as load_trained
    from expunge.training.store import save_trained as save_trained

# The public names by the module that holds them.
_EXPORTS: dict[str, tuple[str, ...]] = {
    # A deletion, from a model to its evidence
    "expunge.planning": ("adopt", "plan", "Plan", "publish", "train"),
    "expunge.measuring": ("measure", "MeasureSettings"),
    "expunge.report.folder": ("write_report",),
    "expunge.report.verify": ("Verification", "verify_folder"),
    "expunge.ledger": ("Ledger",),
    "expunge.jobs.exclusion": ("exclude", "excluded"),
    "expunge.jobs.propagation": ("Descendant", "propagate"),
    "expunge.screening.language": ("LanguageScreening", "screen_language"),
    "expunge.screening.result": ("screen_breadth", "ScreeningResult"),
    # Requests, promises and results
    "expunge.core.request": ("Kind", "Request", "Target"),
    "expunge.core.trained": ("Artifact", "Budget", "Fact", "Origin", "Recipe", "Trail", "Trained"),
    "expunge.core.data": ("Data", "Deletion", "Ids"),
    "expunge.core.certificate": ("Assumption", "Certificate", "Claim", "Verdict"),
    "expunge.core.measurement": ("Check", "Evidence", "Measurement"),
    # Data
    "expunge.data.rows": ("Rows",),
    "expunge.data.texts": ("read_jsonl", "Texts"),
    "expunge.data.tables": ("read_csv",),
    "expunge.data.arrays": ("read_arrays",),
    "expunge.data.images": ("image_folder", "omniglot", "orl_faces"),
    "expunge.data.heart": ("heart_disease",),
    "expunge.data.idx": ("fashion_mnist", "mnist"),
    "expunge.data.cifar": ("cifar10",),
    "expunge.data.digits": ("digits",),
    "expunge.data.tofu": ("read_tofu",),
    # Models
    "expunge.tasks.classification": ("Classification",),
    "expunge.tasks.networks": ("mlp", "perceptron", "SoftmaxHead"),
    "expunge.tasks.convolutional": ("cifar_resnet", "conv_bn_net", "resnet18", "small_cnn"),
    "expunge.tasks.language": ("Language",),
    "expunge.tasks.micro_language": ("micro_language",),
    "expunge.tasks.pretrained": ("load_language_model",),
    "expunge.tasks.prompts": ("Prompts",),
    # Training on record
    "expunge.training.recipes": ("GradientDescent", "Stochastic", "UserFit"),
    "expunge.training.noisy": ("NoisyGradientDescent",),
    "expunge.training.perturbed": ("PerturbedMinimiser",),
    "expunge.training.language": ("LanguageTraining",),
    "expunge.training.recorder": ("Recorder",),
    "expunge.training.scikit": ("downdate_ridge", "from_sklearn", "to_sklearn"),
    "expunge.training.store": ("load_trained", "save_trained"),
    # Attacks to test with
    "expunge.attacks.stealthy": ("poison", "trigger_prompts"),
    "expunge.attacks.relearning": ("relearning_attack",),
    "expunge.attacks.quantisation": ("quantisation_attack",),
    "expunge.attacks.mixed": ("mixed_attack",),
    # Adding a method or a kind of model (CONTRIBUTING.md)
    "expunge.core.batch": ("Batch",),
    "expunge.core.digest": ("digest_arrays",),
    "expunge.core.method": (
        "Capabilities",
        "Context",
        "Estimate",
        "Outcome",
        "Paper",
        "Ranges",
        "Refusal",
        "SmallScale",
        "Unlearned",
    ),
    "expunge.core.task": ("Outputs", "Task"),
    "expunge.descent.descend": ("Descend",),
    "expunge.descent.optimizer": ("Shared",),
    "expunge.descent.parameters": ("Modules",),
    "expunge.descent.schedule": ("Passes",),
    "expunge.methods.by_descent": ("GradientMethod", "sgd"),
    "expunge.modalities.modality": ("Asked", "Modality", "Opened"),
    "expunge.modalities.settings": ("EvidenceSettings", "Job", "RequestSettings", "Strict"),
    "expunge.objectives.supervised": ("Ascent",),
    # Errors
    "expunge.core.errors": (
        "ExpungeError",
        "ExtraMissingError",
        "FailedError",
        "HeldBackError",
        "InputError",
        "RefusedError",
        "TamperedError",
    ),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    if name == "methods":
        return importlib.import_module("expunge.methods")
    if name not in _HOMES:
        raise AttributeError(f"module 'expunge' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__", "methods"])
