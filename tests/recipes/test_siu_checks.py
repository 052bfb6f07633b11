"""What the SIU paper (arXiv 2405.12523) says of its method and of others, checked on models that recognise what they see.

Each check runs on two worlds: handwritten digits (the shipped models, from the first three pictures of a seven), and letters
(three originals and three models without psi, seeds 0 to 2, some minutes of training each unless they are in the cache). Means
are over these three. Bounds leave a margin to what was measured; where a world does not show what the paper or a smaller study of
ours says, the docstring has its numbers and the bound is of what was measured.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from tests.recipes.seeing import Trials, ga, joint_digits, joint_letters, made, po, psi, sevens, siu

from expunge.data.pictures import IMAGE
from expunge.modalities.vision_language.make_weights import GATES, GOLD
from expunge.tasks.model_parts import model_parts

pytestmark = pytest.mark.slow
MASKS = {"plain KL": {"positions": "none", "vocabulary": False}, "K_V alone": {"positions": "none"},
         "K_S alone": {"vocabulary": False}}  # fmt: skip
TARGETS = {"target 1": ("unseen",), "targets 1 and 2": ("unseen", "description"),
           "without target 3": ("unseen", "description", "others")}  # fmt: skip
ROWS = {
    "dose": siu(1e-3, 6),
    "siu 24": siu(3e-3, 24), "siu": siu(3e-3, 48), "siu 96": siu(3e-3, 96),
    **{name: siu(3e-3, 48, **settings) for name, settings in MASKS.items()},
    "plain KL 24": siu(3e-3, 24, **MASKS["plain KL"]),
    **{name: siu(3e-3, 48, targets=targets) for name, targets in TARGETS.items()},
    "siu_spread": made(siu(2e-3, 96, instead="spread"), pieces=12),
    "yes_no": made(siu(3e-3, 48), yes_no=4),
    "siu_spread_yes_no": made(siu(2e-3, 96, instead="spread"), pieces=12, yes_no=12),
    "po 12": po(3e-3, 12), "po 24": po(1e-3, 24), "po 48": po(1e-3, 48),
    **{f"ga {steps}": ga(1e-3, steps) for steps in (6, 12, 24, 48)},
}  # fmt: skip
JOINT = {"siu": siu(3e-3, 144), "siu_shown": made(siu(2e-3, 180, retain_images=True), shown=1)}
BOTH = ("digits", "letters")


@cache
def trials(world: str) -> Trials:
    """The three models, or pictures, of a world."""
    if world == "letters":
        return Trials([(psi(seed, ROWS), seed) for seed in range(3)])
    pair = sevens(ROWS)
    return Trials([(pair, number) for number in range(3)])


@cache
def joint(world: str) -> Trials:
    """The same, three concepts together."""
    if world == "letters":
        return Trials([(joint_letters(seed, ("psi", "beta", "omega"), JOINT), seed) for seed in range(3)])
    pair = joint_digits(("seven", "three", "zero"), JOINT)
    return Trials([(pair, number) for number in range(3)])


on_both = pytest.mark.parametrize("world", BOTH)


@on_both
def test_b00_the_original_knows_its_world_and_gold_was_never_shown_the_concept(world):
    """The gates of the shipped weights; the original's names of both worlds are 95 % right or more."""
    for pair, number in trials(world).pairs:
        found = {which: pair.shares(which, number) for which in ("original", "gold")}
        assert not {name for name, least in GATES.items() if found["original"][name] < least}, found["original"]
        assert not {name for name, least in GOLD.items() if found["gold"][name] < least}, found["gold"]
        assert found["gold"]["recognition_unseen"] <= 0.05 and found["original"]["others"] >= 0.95


@on_both
def test_b01_siu_forgets_the_concept_from_one_picture(world):
    own = trials(world)
    assert (own.each("siu", "recognition_seen") == 0).all()
    assert own.mean("siu", "recognition_unseen") <= 0.1 and own.mean("siu", "name_probability") <= 0.1
    assert own.mean("siu", "c_dis") >= 4


@on_both
def test_b02_facts_in_words_stay(world):
    own = trials(world)
    assert own.mean("siu", "facts") >= 0.95 and own.mean("siu", "facts_others") >= 0.95


@on_both
def test_b03_other_concepts_and_the_language_stay(world):
    own = trials(world)
    assert own.mean("siu", "others") >= 0.9
    assert own.mean("original", "spec") - own.mean("siu", "spec") <= 0.1
    assert own.mean("siu", "fluency") == pytest.approx(own.mean("original", "fluency"), rel=0.02)


@on_both
def test_b07_ga_falls_off_a_cliff_with_its_steps_and_siu_does_not(world):
    """Twelve steps are GA's working point, 48 are SIU's: doubled, GA loses .27 of its spec on digits, and SIU nothing."""
    own = trials(world)
    assert own.mean("ga 12", "spec") - own.mean("ga 24", "spec") >= 0.25
    assert own.mean("siu", "spec") - own.mean("siu 96", "spec") <= 0.12
    assert own.mean("siu 96", "recognition_unseen") <= 0.1
    assert own.mean("ga 48", "facts") <= 0.25 and own.mean("siu 96", "facts") >= 0.95


@on_both
def test_b09_relearning_takes_longest_where_the_concept_was_never_shown(world):
    """Steps on one new picture until its name is probable again; on digits GA .7, SIU 2.7 and the retrained model 10."""
    own = trials(world)
    ga_12, by_siu, gold = (own.relearnt(row) for row in ("ga 12", "siu", "gold"))
    assert ga_12.mean() < by_siu.mean() < gold.mean() and (by_siu < gold).all()


@on_both
def test_b11_a_small_dose_does_nothing(world):
    """Guards against a hidden change of scale in the loss: 1e-3 for six steps."""
    assert (trials(world).each("dose", "name_probability") >= 0.9).all()


@on_both
def test_b12_the_part_that_sees_is_bit_for_bit_what_it_was(world):
    pair, number = trials(world).pairs[0]
    after, model = pair.of("siu", number), pair.task.build(pair.original)
    parts = model_parts(model)
    assert parts is not None
    seeing = [name for name in pair.original if name.startswith((f"{parts.vision}.", f"{parts.connector}."))]
    assert len(seeing) > 10 and all(torch.equal(after[name], pair.original[name]) for name in seeing)
    assert any(not torch.equal(after[name], tensor) for name, tensor in pair.original.items())
    batch = pair.task.encode([record for record in pair.world.named("seven", "psi") if IMAGE in record][:4])
    tower = pair.task.build(after).get_submodule(parts.vision)
    with torch.no_grad():
        before, now = (
            each(pixel_values=batch["pixel_values"]).last_hidden_state
            for each in (model.get_submodule(parts.vision), tower)
        )
    assert torch.equal(before, now)
