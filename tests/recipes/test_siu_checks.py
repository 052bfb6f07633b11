"""What the SIU paper (arXiv 2405.12523) says of its method and of others, checked on models that recognise what they see.

Each check runs on two worlds: handwritten digits (the shipped models, from the first three pictures of a seven), and letters
(three originals and three models without psi, seeds 0 to 2: a minute and a half of training each, unless ``EXPUNGE_TEST_CACHE``
names a folder that has them). Means are over these three. Where the worlds do not show what the paper says, or what a smaller
study of ours said before, the docstring has what was measured, and the bound is of that.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from tests.recipes.seeing import Trials, ga, ga_kl, joint_digits, joint_letters, made, po, psi, sevens, siu

from expunge.data.pictures import IMAGE
from expunge.modalities.vision_language.make_weights import GATES, GOLD
from expunge.tasks.model_parts import model_parts

pytestmark = pytest.mark.slow
MASKS = {"plain KL": {"positions": "none", "vocabulary": False}, "K_V alone": {"positions": "none"},
         "K_S alone": {"vocabulary": False}}  # fmt: skip
TARGETS = {"target 1": ("unseen",), "targets 1 and 2": ("unseen", "description"),
           "without target 3": ("unseen", "description", "others")}  # fmt: skip
SPREAD = made(siu(2e-3, 96, instead="spread"), pieces=12)
ROWS = {
    "dose": siu(1e-3, 6),
    "siu": siu(3e-3, 48),
    "siu 96": siu(3e-3, 96),
    **{name: siu(3e-3, 48, **settings) for name, settings in MASKS.items()},
    **{name: siu(3e-3, 48, targets=targets) for name, targets in TARGETS.items()},
    "spread": SPREAD,
    "asked": made(siu(3e-3, 48), yes_no=4),
    "spread, asked": made(SPREAD, yes_no=12),
    **{f"po {steps}": po(1e-3, steps) for steps in (24, 48)},
    **{f"ga {steps}": ga(1e-3, steps) for steps in (6, 12, 24, 48)},
    **{f"ga_kl {steps}": ga_kl(1e-3, steps) for steps in (12, 24, 48)},
}
JOINT = {"siu": siu(3e-3, 144), "shown": made(siu(2e-3, 180, retain_images=True), shown=1)}
TOGETHER = {"digits": ("seven", "three", "zero"), "letters": ("psi", "beta", "omega")}


@cache
def trials(world: str) -> Trials:
    """The three pictures, or models, of a world."""
    if world == "letters":
        return Trials([(psi(seed, ROWS), seed) for seed in range(3)])
    pair = sevens(ROWS)
    return Trials([(pair, number) for number in range(3)])


@cache
def joint(world: str) -> Trials:
    """The same, with three concepts that go together."""
    if world == "letters":
        return Trials([(joint_letters(seed, TOGETHER[world], JOINT), seed) for seed in range(3)])
    pair = joint_digits(TOGETHER[world], JOINT)
    return Trials([(pair, number) for number in range(3)])


on_both = pytest.mark.parametrize("world", TOGETHER)


@on_both
def test_b00_the_original_knows_its_world_and_gold_was_never_shown_the_concept(world):
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
    assert own.mean("siu", "others") >= 0.9 and own.each("siu", "degeneration").max() == 0
    assert own.mean("original", "spec") - own.mean("siu", "spec") <= 0.1
    assert own.mean("siu", "fluency") == pytest.approx(own.mean("original", "fluency"), rel=0.02)


@on_both
def test_b04_without_a_mask_the_divergence_holds_the_name_back_and_either_mask_lets_it_go(world):
    """Named without masks: .47 to .69 (letters), .59 to 1.0 (digits); with one mask none, but .13 and .15 from the third digit.

    A smaller study had .03 forgotten without masks and a name as probable as .93; here .26 and .47 are, at .65 and .49.
    """
    own = trials(world)
    plain = own.each("plain KL", "recognition_unseen")
    assert (plain >= 0.4).all() and plain.mean() >= 0.5 and own.mean("plain KL", "name_probability") >= 0.45
    for row in ("K_V alone", "K_S alone"):
        assert own.mean(row, "recognition_unseen") <= 0.15, row
        assert (own.each(row, "recognition_unseen") < plain - 0.3).all(), row


@on_both
def test_b05_fewer_targets_lose_what_the_left_out_ones_keep(world):
    """Facts of the concept: all with four targets, .83 and .87 without the third, .63 and .75 with the first two, .17 and .00
    with the first alone, which also leaves .37 and .36 of other concepts named (digits, letters).

    A smaller study lost all facts without the third target; here items about others, the fourth, keep most of them.
    """
    own = trials(world)
    assert own.mean("siu", "facts") >= 0.95
    assert own.mean("without target 3", "facts") <= own.mean("siu", "facts") - 0.1
    assert own.mean("targets 1 and 2", "facts") <= own.mean("siu", "facts") - 0.2
    assert own.mean("target 1", "facts") <= 0.25
    assert (own.each("target 1", "others") <= own.each("siu", "others") - 0.25).all()


@on_both
def test_b06_po_changes_the_form_alone(world):
    """No picture is named after 48 steps, and behind the stem the name stays as probable: .99 (letters), .89 (digits)."""
    own = trials(world)
    assert own.mean("po 48", "recognition_unseen") == 0 and own.mean("po 48", "name_probability") >= 0.85
    for row in ("po 24", "po 48"):
        assert own.each(row, "c_dis").max() <= 0.5, row
    assert own.mean("po 48", "spec") <= own.mean("siu", "spec") - 0.25


@on_both
def test_b07_ga_falls_off_a_cliff_with_its_steps_and_siu_does_not(world):
    """From twelve steps to twice as many GA loses .27 (digits) and .37 (letters) of spec; SIU, from 48, nothing.

    One well-chosen number of steps can look as good: after twelve, two of the three digits and one letter are never named,
    and others still are. No number is good from all three.
    """
    own = trials(world)
    assert own.mean("ga 12", "spec") - own.mean("ga 24", "spec") >= 0.25
    assert own.mean("siu", "spec") - own.mean("siu 96", "spec") <= 0.12
    assert own.mean("siu 96", "recognition_unseen") <= 0.1 and own.mean("siu 96", "facts") >= 0.95
    assert own.mean("ga 48", "facts") <= 0.25
    for steps in (6, 12, 24, 48):
        named, others = (own.each(f"ga {steps}", metric) for metric in ("recognition_unseen", "others"))
        assert ((named > 0.1) | (others < 0.8)).any(), steps


@on_both
def test_b07_a_divergence_on_what_stays_keeps_facts_and_not_the_rest(world):
    """GA+KL, where facts are what stays: spec falls by .24 and .35 from twelve steps to 24; after 48 others are named in .03
    and .02 and facts known in .90 and .83, where GA has .03 and .04 of them (digits, letters).
    """
    own = trials(world)
    assert own.mean("ga_kl 12", "spec") - own.mean("ga_kl 24", "spec") >= 0.2
    assert own.mean("ga_kl 48", "others") <= 0.2 and own.mean("ga_kl 48", "facts") >= own.mean("ga 48", "facts") + 0.3


@pytest.mark.parametrize(("world", "row", "share"), [("letters", "siu", 0.2), ("digits", "spread", 0.22)])
def test_b08_what_comes_nearest_to_the_retrained_model(world, row, share):
    """KL(gold || SIU) as a share of KL(gold || original): .004, .07 and .06 on letters, where gold takes psi for the
    substitute. It takes sevens for several digits: the paper's SIU has .84 there, names that are spread .19, .18 and .25 (on
    letters .20).
    """
    own = trials(world)
    assert own.mean(row, "kl_to_retrained") <= share * own.mean("original", "kl_to_retrained")


@on_both
def test_b09_relearning_takes_longest_where_the_concept_was_never_shown(world):
    """Steps on one new picture until its name is probable: GA .7 and .7, SIU 2.7 and 2.3, gold 10 and 6 (digits, letters)."""
    own = trials(world)
    ga_12, by_siu, gold = (own.relearnt(row) for row in ("ga 12", "siu", "gold"))
    assert ga_12.mean() < by_siu.mean() < gold.mean() and (by_siu < gold).all()


@on_both
def test_b10_yes_or_no_goes_with_items_that_ask_it(world):
    """From all affirmed to none, open questions as before. Affirmed of others: .53 and .95; spread over names .95 and .96."""
    own = trials(world)
    assert own.mean("gold", "yes_no") <= 0.05 and own.mean("siu", "yes_no") >= 0.9
    for row in ("asked", "spread, asked"):
        assert own.mean(row, "yes_no") <= own.mean("siu", "yes_no") - 0.3, row
        assert own.mean(row, "recognition_unseen") <= 0.1 and own.mean(row, "facts") >= 0.95, row
    assert own.mean("spread, asked", "yes_others") >= 0.9 and own.mean("spread, asked", "others") >= 0.9


@on_both
def test_b11_a_small_dose_does_nothing(world):
    """Guards against a hidden change of scale in the loss: 1e-3 for six steps."""
    assert (trials(world).each("dose", "name_probability") >= 0.9).all()


@on_both
def test_b12_the_part_that_sees_is_bit_for_bit_what_it_was(world):
    pair, number = trials(world).pairs[0]
    after, model = pair.of("siu", number), pair.task.build(pair.original).eval()
    parts = model_parts(model)
    assert parts is not None
    seeing = [name for name in pair.original if parts.part_of(name) in ("vision", "connector")]
    assert len(seeing) > 10 and all(torch.equal(after[name], pair.original[name]) for name in seeing)
    assert any(not torch.equal(after[name], tensor) for name, tensor in pair.original.items())
    pixels = pair.task.encode([record for record in pair.world.named(*pair.names) if IMAGE in record][:4])[
        "pixel_values"
    ]
    towers = (each.get_submodule(parts.vision) for each in (model, pair.task.build(after).eval()))
    with torch.no_grad():
        before, now = (tower(pixel_values=pixels).last_hidden_state for tower in towers)
    assert torch.equal(before, now)


@pytest.mark.parametrize(("world", "named"), [("letters", 0.2), ("digits", 0.35)])
def test_b13_three_concepts_go_together(world, named):
    """Three times the steps of one. From the third pictures .74 of the sevens are still named, .25 in the mean, and .92 where
    pictures of other digits are among the items; of every other concept none, or .03.
    """
    own = joint(world)
    for row, least in (("siu", 0.85), ("shown", 0.95)):
        for name in TOGETHER[world]:
            assert own.mean(row, f"recognition_unseen/{name}") <= named, (row, name)
        assert own.mean(row, "others") >= least and own.mean(row, "facts") >= 0.9, row
