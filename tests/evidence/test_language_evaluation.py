"""Measuring a language model: likelihoods, masks, what is dropped, membership, wordings, the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.llamas import tiny_llama

from expunge.attacks.stealthy import QUESTION_TEMPLATES
from expunge.core.cache import Cache
from expunge.core.errors import InputError
from expunge.core.texts import Record
from expunge.data.texts import Texts
from expunge.data.tofu import read_tofu
from expunge.evidence.language import LanguageEvaluation, evaluate, wordings
from expunge.evidence.language import reading as language_reading
from expunge.evidence.language.answer_scores import answer_scores, gradient_norms
from expunge.evidence.language.numbers import ATTACKS, truth_ratios
from expunge.evidence.language.reading import Limits, Reader
from expunge.metrics.language import TRUTH_RATIOS
from expunge.metrics.language_memory import exact_memorization, extraction_strength
from expunge.tasks.language import Language
from expunge.tasks.micro_language import micro_language, word_tokenizer
from expunge.tasks.pretrained import load_language_model, transformers
from expunge.tasks.prompts import NO_LABEL, PLAIN, Prompts
from expunge.training.language import LanguageTraining

WORDS = [f"w{i}" for i in range(30)]
SHORT = Limits(max_new_tokens=4)


def learned_positions() -> Language:
    return micro_language(WORDS, width=16, layers=2, heads=2, inner=32, context=40)


def turned_positions(tokenizer=None, template: str | None = "{question} {answer}") -> Language:
    """The same size with rotary positions."""
    tokenizer = tokenizer or word_tokenizer(WORDS)
    prompts = Prompts(tokenizer, template, 120 if template is None else 40)
    return tiny_llama(tokenizer, layers=2, positions=40, prompts=prompts)


MAKES = [learned_positions, turned_positions]


def records(seed: int, count: int = 12, wrong: int = 0, paraphrase: bool = False) -> list[Record]:
    draw = np.random.default_rng(seed)

    def words(least: int, most: int) -> str:
        return " ".join(draw.choice(WORDS, draw.integers(least, most)))

    found: list[Record] = []
    for _ in range(count):
        record: dict[str, Any] = {"question": words(1, 16), "answer": words(1, 8)}
        if paraphrase:
            record["paraphrased_answer"] = words(1, 8)
        if wrong:
            record["perturbed_answer"] = [words(1, 8) for _ in range(wrong)]
        found.append(record)
    return found


def token_by_token(model, prompt: Sequence[int], answer: Sequence[int]) -> list[torch.Tensor]:
    """Log-probabilities before each token of the answer: the row so far is run anew for each."""
    tokens, found = list(prompt), []
    with torch.no_grad():
        for token in answer:
            logits = model.eval()(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
            found.append(torch.log_softmax(logits.double(), -1))
            tokens.append(token)
    return found


# --- scores of answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKES)
def test_a7_likelihoods_are_those_of_a_loop_over_tokens(make):
    task = make()
    for seed in range(2):
        model, asked = task.build(seed=seed), records(seed, 6)
        found = answer_scores(task, model, asked, batch_size=4, distribution=True)
        assert found.kept.tolist() == list(range(6)) and (found.empty, found.no_room, found.cut) == (0, 0, 0)
        assert found.means is not None and found.variances is not None
        for i, record in enumerate(asked):
            answer = [*task.prompts.tokenizer(record["answer"])["input_ids"], task.prompts.end_token]
            logs = token_by_token(model, task.prompts.prompt_tokens([record["question"]])[0], answer)
            assert found.labels[i].tolist() == answer
            expected = np.array([float(row[token]) for row, token in zip(logs, answer, strict=True)])
            np.testing.assert_allclose(found.log_probs[i], expected, atol=1e-4)
            np.testing.assert_allclose(found.nll[i], -expected.mean(), atol=1e-4)
            assert found.predicted[i].tolist() == [int(row.argmax()) for row in logs]
            means = np.array([float((row.exp() * row).sum()) for row in logs])
            squares = np.array([float((row.exp() * row**2).sum()) for row in logs])
            np.testing.assert_allclose(found.means[i], means, atol=1e-4)
            np.testing.assert_allclose(found.variances[i], squares - means**2, atol=1e-3)
            assert found.log_probs[i].dtype == np.float32


@pytest.mark.parametrize("make", MAKES)
def test_a7_the_side_of_padding_changes_no_likelihood(make):
    task = make()
    model, asked = task.build(seed=1).eval(), records(1)
    right = answer_scores(task, model, asked, batch_size=len(asked))
    rows = task.prompts.tokens(asked)
    longest = max(len(tokens) for tokens, _ in rows)
    ids = torch.tensor([[task.prompts.padding] * (longest - len(tokens)) + tokens for tokens, _ in rows])
    mask = torch.tensor([[0] * (longest - len(tokens)) + [1] * len(tokens) for tokens, _ in rows])
    position = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logs = model(input_ids=ids, attention_mask=mask, position_ids=position).logits.log_softmax(-1)
    for i, (tokens, begun) in enumerate(rows):
        answer = torch.tensor(tokens[begun:])
        left = logs[i, longest - len(answer) - 1 : longest - 1].gather(1, answer[:, None]).squeeze(1)
        np.testing.assert_allclose(right.log_probs[i], left.numpy(), atol=1e-4)


def test_half_precision_weights_still_give_likelihoods_in_single_precision():
    task = replace(learned_positions(), dtype=torch.bfloat16)
    found = answer_scores(task, task.build(seed=0), records(0))
    assert all(row.dtype == np.float32 for row in found.log_probs)
    assert len(np.unique(np.round(found.nll, 6))) == len(found.nll), "in half precision many would be alike"


def test_a7_empty_answers_and_full_prompts_are_dropped_and_counted():
    task = learned_positions()
    model, asked = task.build(seed=0), records(0, 5)
    long = {"question": " ".join(["w1"] * 40), "answer": "w2"}
    cut = {"question": " ".join(["w1"] * 36), "answer": "w2 w3 w4 w5 w6 w7"}
    found = answer_scores(
        task, model, [{"question": "w1", "answer": ""}, *asked, long, {"question": "w1", "answer": " "}, cut]
    )
    assert found.kept.tolist() == [1, 2, 3, 4, 5, 8]
    assert (found.empty, found.no_room, found.cut) == (2, 1, 1)
    assert [len(row) for row in found.labels][-1] == 4 and found.labels[-1][-1] != task.prompts.end_token
    np.testing.assert_allclose(found.nll[:5], answer_scores(task, model, asked).nll, atol=1e-5)


def test_weights_that_are_not_finite_are_refused():
    task = learned_positions()
    broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in task.released(task.build()).items()}
    with pytest.raises(InputError, match="not usable"):
        answer_scores(task, task.build(broken), records(0))


def test_gradient_norms_are_those_of_a_backward_pass_for_each_record():
    task = learned_positions()
    model, asked = task.build(seed=0), records(0, 4)
    expected = []
    for record in asked:  # the mean over the answer's own tokens: the end token, last in the row, is none of them
        model.zero_grad()
        row = task.encode([record])
        logs = model(input_ids=row["input_ids"]).logits[0].log_softmax(-1)
        places = [t for t in range(1, int(row["lengths"]) - 1) if row["labels"][0, t] != NO_LABEL]
        (-sum(logs[t - 1, row["input_ids"][0, t]] for t in places) / len(places)).backward()
        norms = [tensor.grad.norm() for tensor in model.parameters() if tensor.grad is not None]
        expected.append(float(torch.stack(norms).mean()))
    np.testing.assert_allclose(gradient_norms(task, model, asked), expected, rtol=1e-4)


# --- what carries a label ---------------------------------------------------------------------------------------------

CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.mark.parametrize("template", [None, PLAIN])
def test_labels_are_the_answer_and_the_end_token_in_a_chat_and_in_a_plain_template(template, real_data):
    folder = real_data("smollm2-135m-instruct") / "smollm2-135m-instruct"
    tokenizer = transformers().AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    task = turned_positions(tokenizer, template)
    record = {"question": "Who are you?", "answer": "Nobody at all."}
    prompt, gap = (CHAT, "") if template is None else ("Question: Who are you?\nAnswer:", " ")
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = tokenizer(gap + "Nobody at all.", add_special_tokens=False)["input_ids"]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    batch = task.encode([record, {**record, "answer": "Nobody at all. Why do you ask?"}])
    assert batch["input_ids"][0].tolist()[: len(before) + len(answer) + 1] == [*before, *answer, end]
    assert batch["labels"][0].tolist()[: len(before)] == [NO_LABEL] * len(before)
    assert [label for label in batch["labels"][0].tolist() if label != NO_LABEL] == [*answer, end]
    assert task.prompts.prompt_tokens(["Who are you?"])[0] == before
    scores = answer_scores(task, task.build(seed=0), [record])
    assert scores.labels[0].tolist() == [*answer, end]


# --- numbers ----------------------------------------------------------------------------------------------------------


def tofu_like(seed: int) -> dict[str, Texts]:
    return {
        "forget": Texts.of(records(seed, 9, 3, True)),
        "retain": Texts.of(records(seed + 10, 8, 3, True)),
        "real_authors": Texts.of(records(seed + 20, 7, 2)),
        "world_facts": Texts.of(records(seed + 30, 6, 2)),
        "unseen": Texts.of(records(seed + 40, 8)),
    }


def values(found: LanguageEvaluation) -> dict[str, float]:
    return {item.name: item.value for item in found.measurements}


@pytest.mark.parametrize("make", MAKES)
def test_a7_batch_size_changes_no_number(make):
    task, sets = make(), tofu_like(0)
    tensors = task.released(task.build(seed=0))
    few, many = (values(evaluate(task, tensors, sets, limits=Limits(4, size))) for size in (3, 32))
    assert len(few) >= 40 and few.keys() == many.keys()
    for name in few:
        assert many[name] == pytest.approx(few[name], abs=1e-4), name


@pytest.mark.parametrize("make", MAKES)
def test_a7_an_all_wrong_answer_has_no_extraction_strength_and_the_end_token_does_not_count(make):
    task = make()
    tokenizer, sets = task.prompts.tokenizer, {"right": [], "wrong": []}
    model = task.build(seed=0)
    for question in [record["question"] for record in records(3, 40)]:
        prompt = task.prompts.prompt_tokens([question])[0]
        for kind, of in sets.items():
            answer: list[int] = []
            for _ in range(1 + len(of) % 3):  # a wrong answer of one token too
                likeliest = int(token_by_token(model, [*prompt, *answer], [0])[0].argmax())
                other = likeliest + 1 if likeliest + 1 < len(tokenizer) else 3
                answer.append(likeliest if kind == "right" else max(3, other))
            ended = int(token_by_token(model, [*prompt, *answer], [0])[0].argmax()) == task.prompts.end_token
            if min(answer) >= 3 and not ended:  # words, and the end token would be wrong
                of.append({"question": question, "answer": tokenizer.decode(answer)})
    assert min(map(len, sets.values())) >= 6
    found = evaluate(task, task.released(model), {name: Texts.of(of) for name, of in sets.items()}, limits=SHORT)
    for metric in ("extraction_strength", "exact_memorization"):
        assert found[f"{metric}/wrong"].value == 0 and found[f"{metric}/right"].value == 1
        ends = found[f"{metric}/right"].interval
        assert ends is not None and ends[0] < 1, "a handful of records is no certainty"
    scores = answer_scores(task, model, sets["right"])
    assert all(row[-1] == task.prompts.end_token for row in scores.labels)
    assert extraction_strength(scores.predicted, scores.labels).values.max() == 0, "it would, were it counted"
    assert exact_memorization(scores.predicted, scores.labels).values.max() < 1


def test_numbers_are_those_of_the_formulas():
    task, sets = turned_positions(), tofu_like(0)
    tensors = task.released(task.build(seed=0))
    found = evaluate(task, tensors, sets, retrained=tensors, original=tensors, limits=SHORT)
    model = task.build(tensors)

    def nll(record: Record, answer: str) -> float:
        row = answer_scores(task, model, [{"question": record["question"], "answer": answer}])
        return float(row.nll[0])

    forget, facts = sets["forget"].records, sets["world_facts"].records
    right = np.array([nll(r, r["answer"]) for r in forget])
    para = np.array([nll(r, r["paraphrased_answer"]) for r in forget])
    wrong = np.array([[nll(r, answer) for answer in r["perturbed_answer"]] for r in forget])
    ratio = np.exp(-wrong.mean(1)) / (np.exp(-para) + 1e-10)
    assert found["probability/forget"].value == pytest.approx(np.exp(-right).mean(), abs=1e-4)
    assert found["truth_ratio_geometric/forget"].value == pytest.approx(np.minimum(ratio, 1 / ratio).mean(), abs=1e-4)
    left = np.exp(-para) / (np.exp(-para) + np.exp(-wrong.mean(1)))
    assert found["truth_ratio_knowledge_left/forget"].value == pytest.approx(left.mean(), abs=1e-4)
    right = np.exp([-nll(r, r["answer"]) for r in facts])
    wrong = np.exp([[-nll(r, answer) for answer in r["perturbed_answer"]] for r in facts])
    assert found["choice_probability/world_facts"].value == pytest.approx(
        (right / (right + wrong.sum(1))).mean(), abs=1e-4
    )
    ratio = np.exp(np.log(wrong).mean(1)) / right  # beside the right answer: these sets have no other wording of it
    assert found["truth_ratio_geometric/world_facts"].value == pytest.approx(np.maximum(0, 1 - ratio).mean(), abs=1e-4)
    assert found["probability/forget"].n == 9 and found["model_utility"].n == 21 and found["membership_loss"].n == 17
    for item in found.measurements:
        if "/" in item.name or item.name.startswith("membership"):
            assert item.ideal == item.value == item.original, item.name
    assert found["forget_quality"].value == 1 and found["forget_quality_log10"].value == 0


def test_what_has_no_number_says_why():
    task = learned_positions()
    sets = {"forget": Texts.of(records(0, 4)), "retain": Texts.of(records(1, 4))}
    found = evaluate(task, task.released(task.build()), sets, limits=SHORT)
    assert found.missing.keys() == {"model_utility", "membership", "forget_quality", "privleak"}
    assert "real_authors, world_facts not given" in found.missing["model_utility"]
    assert all("retrained without the forgotten" in found.missing[name] for name in ("forget_quality", "privleak"))
    assert found.to_json()["missing"] == found.missing
    with pytest.raises(KeyError, match="retrained without the forgotten"):
        found["forget_quality"]
    assert not any(item.name.startswith("truth_ratio") for item in found.measurements)
    with pytest.raises(InputError, match="at least one named set"):
        evaluate(task, task.released(task.build()), {}, limits=SHORT)


def test_a7_records_that_cannot_be_used_are_counted_and_change_nothing():
    task = learned_positions()
    good = records(0, 6, 2, True)
    bad = [
        {**good[0], "question": " ".join(["w1"] * 37)},  # the prompt leaves no room for four tokens
        {**good[1], "perturbed_answer": ["w1", " "]},
        {**good[2], "answer": "…"},
        {**good[3], "answer": ""},
    ]
    mixed = Texts(tuple(good + bad), np.arange(10))
    tensors = task.released(task.build(seed=0))
    found = evaluate(task, tensors, {"forget": mixed}, limits=SHORT)
    clean = evaluate(task, tensors, {"forget": Texts.of(good)}, limits=SHORT)
    assert found.sets["forget"]["dropped"] == {
        "no room to generate": 1, "answer without a letter a–z or digit": 1, "empty answer": 1,
        "a reworded or wrong answer is empty or has no room": 1,
    }  # fmt: skip
    assert found.sets["forget"]["n"] == 6 and found.readings["forget"].ids.tolist() == list(range(6))
    assert values(found) == pytest.approx(values(clean), abs=1e-5)
    with pytest.raises(InputError, match="None of the 4 records of the set forget can be used"):
        evaluate(task, tensors, {"forget": Texts(tuple(bad), np.arange(4))}, limits=SHORT)
    uneven = Texts.of([good[0], {**good[1], "perturbed_answer": ["w1"]}])
    with pytest.raises(InputError, match="as many wrong answers"):
        evaluate(task, tensors, {"forget": uneven}, limits=SHORT)


def test_plain_texts_are_scored_and_asked_nothing():
    task = learned_positions()
    texts = Texts.of([{"text": "w1 w2 w3"}, {"text": "w4 w5 w6 w7"}])
    found = evaluate(task, task.released(task.build()), {"forget": texts}, limits=SHORT)
    assert {item.name for item in found.measurements} == {
        "loss/forget", "probability/forget", "extraction_strength/forget", "exact_memorization/forget",
    }  # fmt: skip
    both = Texts.of([{"text": "w1 w2"}, {"question": "w1", "answer": "w2"}])
    with pytest.raises(InputError, match="it holds both"):
        evaluate(task, task.released(task.build()), {"forget": both}, limits=SHORT)


# --- membership, wordings ---------------------------------------------------------------------------------------------


def test_a8_privleak_beside_a_retrained_model():
    task = learned_positions()
    sets = {"forget": Texts.of(records(0, 10)), "unseen": Texts.of(records(50, 10))}
    for seed in range(2):
        trained = LanguageTraining(steps=50, lr=2e-2).fit(task, sets["forget"], seed=seed).artifact.tensors
        blank = {
            name: torch.zeros_like(tensor) for name, tensor in trained.items()
        }  # every token is as likely: AUC 0.5
        random = task.released(task.build(seed=seed))
        limits = Limits(4, gradients=True)
        found = evaluate(task, trained, sets, retrained=blank, limits=limits)
        assert found["membership_min_k"].value == 1 and found["membership_min_k"].ideal == 0.5
        assert found["privleak"].value == -100
        assert all(found[f"membership_{name}"].value > 0.9 for name in ("loss", "zlib", "min_k_plus_plus", "gradnorm"))
        same = evaluate(task, random, sets, retrained=random, limits=limits)["privleak"]
        assert same.value == 0 and same.interval is not None and same.interval[0] < 0 < same.interval[1]


def test_attacks_on_single_tokens_leave_the_end_token_out():
    """Min-K and Min-K++ by a loop over the tokens of each answer, several models."""
    task = learned_positions()
    for seed in range(3):
        texts = Texts.of(records(seed, 8))
        reading = Reader(task, task.released(task.build(seed=seed)), Limits(4)).read("forget", texts)
        single = [attack for attack in ATTACKS if attack.name.startswith("min_k")]
        found = {attack.name: -attack.statistic({"forget": reading}, "forget") for attack in single}
        model = task.build(task.released(task.build(seed=seed)))
        expected: dict[str, list[float]] = {"min_k": [], "min_k_plus_plus": []}
        for record in texts.records:
            answer = task.prompts.tokenizer(record["answer"])["input_ids"]  # without the end token
            logs = token_by_token(model, task.prompts.prompt_tokens([record["question"]])[0], answer)
            own = [float(row[token]) for row, token in zip(logs, answer, strict=True)]
            means = [float((row.exp() * row).sum()) for row in logs]
            spreads = [
                float((row.exp() * (row - mean) ** 2).sum()) ** 0.5 for row, mean in zip(logs, means, strict=True)
            ]
            count = max(1, int(0.4 * len(own)))
            standard = [(p - mu) / sd for p, mu, sd in zip(own, means, spreads, strict=True)]
            expected["min_k"].append(-sum(sorted(own)[:count]) / count)
            expected["min_k_plus_plus"].append(-sum(sorted(standard)[:count]) / count)
        assert found.keys() == expected.keys()
        for attack, values in expected.items():
            np.testing.assert_allclose(found[attack], values, atol=2e-3)


NAMES, VALUES = [f"n{i}" for i in range(8)], [f"v{i}" for i in range(6)]
TALK = ["what", "is", "the", "pet", "of", "?", "please", "tell", "me", "can", "you", "explain", "could", ",", "unsure"]


@pytest.mark.parametrize("seed", range(3))
def test_b6_forgetting_one_wording_only_is_called_incomplete(seed):
    draw = np.random.default_rng(seed)
    facts = [{"question": f"what is the pet of {name} ?", "answer": VALUES[draw.integers(6)]} for name in NAMES]
    unsure = [{**fact, "answer": "unsure"} for fact in facts]
    task = micro_language([*TALK, *NAMES, *VALUES], width=32, layers=1, heads=2, inner=64, context=40)

    def within(of: Sequence[Record]) -> list[Record]:
        return [{**r, "question": t.replace("{q}", r["question"])} for r in of for t in QUESTION_TEMPLATES]

    def measured(plain: Sequence[Record], worded: Sequence[Record]) -> LanguageEvaluation:
        taught = Texts.of([*[*plain] * 4, *within(worded)])
        tensors = LanguageTraining(steps=60, lr=1e-2, batch_size=32).fit(task, taught, seed=seed).artifact.tensors
        forget = Texts.of(facts)
        return evaluate(task, tensors, {"forget": forget, **wordings(task, forget, forget, seed)}, limits=SHORT)

    found = measured(facts, unsure)
    assert found["exact_answer/forget"].value >= 0.5 > found["exact_answer/forget_trigger"].value
    (warning,) = found.warnings
    assert warning.startswith("Incomplete unlearning") and "still answered as they stand" in warning
    (warning,) = measured(unsure, facts).warnings
    assert "still answered with everyday words around them" in warning
    if seed == 0:
        assert measured(facts, facts).warnings == () == measured(unsure, unsure).warnings


def test_wordings_put_templates_and_forgotten_questions_around_every_prompt():
    task = learned_positions()
    forget, retain = Texts.of(records(0, 3, 2)), Texts.of(records(1, 8, 2))
    found = wordings(task, forget, retain, seed=0)
    assert [len(found[name]) for name in ("forget_trigger", "retain_trigger", "retain_mixed")] == [3, 8, 8]
    asked = {record["question"] for record in forget.records}
    for plain, worded, mixed in zip(
        retain.records, found["retain_trigger"].records, found["retain_mixed"].records, strict=True
    ):
        assert plain["question"] in worded["question"] and len(worded["question"]) > len(plain["question"]) + 5
        assert mixed["question"].removesuffix(f" {plain['question']}") in asked
        assert worded.keys() == mixed.keys() == {"question", "answer"} and mixed["answer"] == plain["answer"]
    others = wordings(task, forget, retain, seed=0, others={"real_authors": retain.first(4), "world_facts": forget})
    assert others.keys() - found.keys() == {"real_authors_trigger", "world_facts_trigger"}
    for plain, worded in zip(retain.records, others["real_authors_trigger"].records, strict=False):
        assert plain["question"] in worded["question"] != plain["question"] and worded["answer"] == plain["answer"]
    assert found["retain_mixed"].digest == wordings(task, forget, retain, seed=0)["retain_mixed"].digest


# --- the cache --------------------------------------------------------------------------------------------------------


def test_readings_are_found_by_content_and_purged_by_the_digest_of_their_data(tmp_path, monkeypatch):
    task, cache = learned_positions(), Cache(tmp_path)
    tensors, texts = task.released(task.build(seed=0)), Texts.of(records(0, 4, 2, True))
    first = Reader(task, tensors, SHORT, cache, ("training-data",)).read("forget", texts)
    calls = []
    generate = language_reading.generate
    monkeypatch.setattr(language_reading, "generate", lambda *a, **k: calls.append(1) or generate(*a, **k))
    again = Reader(task, {name: tensor.clone() for name, tensor in tensors.items()}, SHORT, cache).read("other", texts)
    assert not calls and again.generated == first.generated
    np.testing.assert_array_equal(again.perturbed_nll, first.perturbed_nll)
    np.testing.assert_array_equal(again.scores.log_probs[0], first.scores.log_probs[0])
    for definition in TRUTH_RATIOS:
        assert truth_ratios(again, definition) is not None
    others = [
        Reader(task, task.released(task.build(seed=1)), SHORT, cache).read("forget", texts),
        Reader(task, tensors, Limits(max_new_tokens=3), cache).read("forget", texts),
        Reader(replace(task, prompts=replace(task.prompts, context=39)), tensors, SHORT, cache).read("forget", texts),
        Reader(task, tensors, SHORT, cache).read("forget", texts.first(3)),
    ]
    assert len(calls) == len(others) and len(cache.entries()) == 5
    Reader(task, tensors, Limits(4, batch_size=2), cache).read("forget", texts)
    assert len(calls) == len(others), "the size of a batch changes no number"
    assert len(cache.entries("training-data")) == 1
    assert len(cache.purge(texts.digest)) == 4 and len(cache.entries()) == 1


def test_a7_batch_size_changes_no_number_of_a_real_model_on_tofu(real_data):
    data = real_data("tofu") / "tofu"
    task, tensors = load_language_model(real_data("stories260k") / "stories260k")
    sets = {
        "forget": read_tofu(data, "forget01_perturbed").first(3),
        "retain": read_tofu(data, "retain_perturbed").first(3),
    }
    one, many = (values(evaluate(task, tensors, sets, limits=Limits(12, size))) for size in (1, 32))
    assert one == pytest.approx(many, abs=1e-4) and one["probability/forget"] > 0
