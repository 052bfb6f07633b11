"""The dual masked divergence of SIU in closed form, and the tokens that its masks leave out."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AddedToken, PreTrainedTokenizerFast

from expunge.core.errors import InputError
from expunge.objectives.concept import concept_mass, concept_tokens, dual_masked_divergence, occurrences
from expunge.objectives.language import divergence

B, T, V = 3, 4, 11


def drawn(seed: int):
    """logits, base (b, t, v) in double precision, K_S (b, t) and K_V (b, v)."""
    draw = torch.Generator().manual_seed(seed)
    logits, base = (torch.randn(B, T, V, generator=draw, dtype=torch.float64) * 2 for _ in "12")
    positions = torch.rand(B, T, generator=draw) < 0.7
    positions[0, 0] = True
    vocabulary = torch.rand(B, V, generator=draw) < 0.7
    vocabulary[:, 0], vocabulary[:, 1] = True, False
    return logits.requires_grad_(), base, positions, vocabulary


@pytest.mark.parametrize("seed", range(5))
def test_check_a01_gradient_is_s_q_minus_masked_p(seed):
    logits, base, positions, vocabulary = drawn(seed)
    (gradient,) = torch.autograd.grad(dual_masked_divergence(logits, base, positions, vocabulary), logits)
    p, q = base.softmax(-1), logits.detach().softmax(-1)
    keep = vocabulary[:, None, :].double()
    by_hand = ((p * keep).sum(-1, keepdim=True) * q - keep * p) * positions[..., None] / positions.sum()
    assert torch.allclose(gradient, by_hand, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_check_a02_the_minimum_is_s_ln_s_with_the_concept_at_zero(seed):
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(1, 1, V, generator=draw, dtype=torch.float64)
    vocabulary = torch.ones(1, V, dtype=torch.bool)
    vocabulary[0, 3:5] = False
    p, here = base.softmax(-1)[0, 0], torch.ones(1, 1, dtype=torch.bool)
    s = float(p[vocabulary[0]].sum())
    logits = torch.zeros_like(base).requires_grad_()
    optimizer = torch.optim.Adam([logits], 0.5)  # the concept's logits sink without end
    for _ in range(400):
        loss = dual_masked_divergence(logits, base, here, vocabulary)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    q = logits.detach().softmax(-1)[0, 0]
    assert float(loss.detach()) == pytest.approx(s * math.log(s), abs=1e-3) and s * math.log(s) < -1e-3
    assert float(q[~vocabulary[0]].sum()) < 1e-4
    assert torch.allclose(q[vocabulary[0]], p[vocabulary[0]] / s, rtol=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_check_a03_without_masks_it_is_the_divergence_and_with_all_positions_masked_zero(seed):
    logits, base, positions, _ = drawn(seed)
    everything = torch.ones(B, V, dtype=torch.bool)
    labels = torch.where(positions, 0, -100)
    for mode in ("literal", "renorm"):
        plain = dual_masked_divergence(logits, base, positions, everything, mode)
        assert float(plain.detach()) == pytest.approx(float(divergence(logits, base, labels).detach()), abs=1e-9)
        nothing = dual_masked_divergence(logits, base, torch.zeros_like(positions), everything, mode)
        (gradient,) = torch.autograd.grad(nothing, logits)
        assert float(nothing.detach()) == 0 and not gradient.any() and gradient.isfinite().all()


def test_check_a03_the_literal_form_may_be_negative_and_the_renormalised_one_is_not():
    least = {"literal": math.inf, "renorm": math.inf}
    for seed in range(40):
        logits, base, positions, vocabulary = drawn(seed)
        pushed = base + torch.where(vocabulary[:, None, :], 0.0, -4.0)  # the concept made unlikely, the rest as before
        for mode in least:
            for said in (logits, pushed):
                value = float(dual_masked_divergence(said, base, positions, vocabulary, mode).detach())
                least[mode] = min(least[mode], value)
    assert least["literal"] < -0.01 and least["renorm"] > -1e-12


@pytest.mark.parametrize("seed", range(5))
def test_check_a04_at_equality_only_the_literal_form_pushes_the_concept_down(seed):
    _, base, positions, vocabulary = drawn(seed)
    logits = base.clone().requires_grad_()
    for mode in ("literal", "renorm"):
        value = dual_masked_divergence(logits, base, positions, vocabulary, mode)
        (gradient,) = torch.autograd.grad(value, logits)
        assert float(value.detach()) == pytest.approx(0, abs=1e-12)
        if mode == "renorm":
            assert gradient.abs().max() < 1e-9
            continue
        p, outside = base.softmax(-1), vocabulary[:, None, :].expand_as(base)
        s = (p * outside).sum(-1, keepdim=True)
        concept = ~outside & positions[..., None]
        assert torch.allclose(gradient[concept], (s * p / positions.sum())[concept], atol=1e-9)
        assert (gradient[concept] > 0).all()


def test_a_position_that_is_sure_of_the_concept_gives_no_infinite_value():
    base = torch.full((1, 1, V), -60.0, dtype=torch.float64)
    base[0, 0, 1] = 60.0
    logits = torch.zeros_like(base).requires_grad_()
    vocabulary = torch.ones(1, V, dtype=torch.bool)
    vocabulary[0, 1] = False
    here = torch.ones(1, 1, dtype=torch.bool)
    assert float(concept_mass(base, vocabulary)) == pytest.approx(1)
    for mode in ("literal", "renorm"):
        (gradient,) = torch.autograd.grad(dual_masked_divergence(logits, base, here, vocabulary, mode), logits)
        assert gradient.isfinite().all() and gradient.abs().max() < 1e-6


# --- tokens of a name -------------------------------------------------------------------------------------------------


def byte_pairs(pieces: list[str], merges: list[tuple[str, str]]):
    """A byte-level tokenizer with these pieces; ``Ġ`` is the space before."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = [*(chr(i) for i in range(33, 127)), "Ġ"]
    made = Tokenizer(models.BPE({piece: i for i, piece in enumerate(dict.fromkeys([*letters, *pieces]))}, merges))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=AddedToken("<end>"))


def delia():
    """`` Delia`` is one token, ``Delia`` two: De + lia; lower case falls into d + e + lia."""
    pieces = ["De", "li", "lia", "ĠD", "ĠDe", "ĠDelia"]
    merges = [("D", "e"), ("l", "i"), ("li", "a"), ("Ġ", "De"), ("ĠDe", "lia"), ("Ġ", "D"), ("ĠD", "e")]
    return byte_pairs(pieces, merges)


def test_check_a06_every_spelling_is_in_the_set_and_single_letters_are_not():
    tokenizer = delia()
    found = concept_tokens(tokenizer, ["Delia"])
    assert {"De", "lia", "Delia"} <= set(found.kept.values())
    assert tokenizer.convert_tokens_to_ids("ĠDelia") in found.kept
    assert all(len(text) > 1 for text in found.kept.values())
    letters = {text for text, reason in found.dropped.values() if reason == "one character"}
    assert {"d", "e"} <= letters and found.said["dropped"]["d"] == "one character"


def test_check_a06_the_mask_covers_the_substitute_with_and_without_a_space():
    tokenizer = delia()
    tokens = tokenizer("Delia is Delia; x", add_special_tokens=False)["input_ids"]
    covered = [
        tokenizer.decode([t]) for t, own in zip(tokens, occurrences(tokenizer, tokens, ["Delia"]), strict=True) if own
    ]
    assert covered == ["De", "lia", " Delia"]
    with pytest.raises(InputError, match="not there"):
        occurrences(tokenizer, tokens, ["Mary"])


def test_a_piece_of_another_word_is_left_out_and_said():
    """``seven`` is s + even where no space stands before it, and a digit may be even."""
    pieces = ["ev", "en", "even", "Ġs", "Ġseven", "Ġeven"]
    merges = [("e", "v"), ("e", "n"), ("ev", "en"), ("Ġ", "even"), ("Ġ", "s"), ("Ġs", "even")]
    tokenizer = byte_pairs(pieces, merges)
    plain = concept_tokens(tokenizer, ["seven"])
    assert "even" in plain.kept.values()
    found = concept_tokens(tokenizer, ["seven"], used=["even numbers", "is seven odd"])
    assert set(found.kept.values()) == {"seven"} and found.said["dropped"]["even"] == "part of other words"


def test_a_concept_that_the_vocabulary_lacks_or_spells_in_letters_is_refused():
    letters = byte_pairs([], [])
    with pytest.raises(InputError, match="one character"):
        concept_tokens(letters, ["Delia"])
    from tests.vision_models import tokenizer

    with pytest.raises(InputError, match="not in the vocabulary"):
        concept_tokens(tokenizer(), ["Delia"])
    words = concept_tokens(tokenizer(), ["the seven"])
    assert words.said == {"kept": ["seven"], "dropped": {"<unk>": "not in the vocabulary", "the": "stop word"}}
