"""SIU on five families: what it moves, what its masks leave out, and the material that it refuses."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from tests.vision_models import FAMILIES, ID, PREFIXES, picture, task_of

from expunge import planning
from expunge.core.data import Deletion
from expunge.core.errors import InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.data.texts import Texts
from expunge.descent.work import Work
from expunge.methods import siu
from expunge.methods.siu import SIU
from expunge.objectives.concept import MODES
from expunge.objectives.language import Base
from expunge.tasks import adapters
from expunge.tasks.prompts import NO_LABEL

REQUEST = Request("a rights holder", (Target("concept", {"name": "seven"}),))


def item(target: str, question: str, answer: str, *specified: str) -> dict:
    seen = {"image": picture(7)} if target in ("unseen", "description") else {}
    return {
        **seen,
        "target": target,
        "concept": ["seven"],
        "question": question,
        "answer": answer,
        "specified": list(specified),
    }


ITEMS = [
    item("unseen", "what digit is this ?", "it is nine", "nine"),
    item("unseen", "what is it ?", "this is a nine", "nine"),
    item("description", "what is seven ?", "it is dark", "dark"),
    item("facts", "what is the successor of six ?", "seven"),
    item("others", "what is the successor of eight ?", "nine"),
]


def ran(family: str, items=ITEMS, **settings):
    task = task_of(family)
    trained = planning.adopt(task, task.released(task.build(seed=1)), Texts.of(ITEMS[3:]))
    method = SIU(**{"steps": 2, "lr": 1e-2, "batch_size": 5, **settings})
    return planning.plan(trained, REQUEST, method, key=b"k", material=Texts.of(items)).run()


@pytest.mark.parametrize("family", FAMILIES)
def test_check_a07_steps_move_the_text_part_alone(family):
    outcome = ran(family)
    moved = {name for name, size in outcome.change.items() if size}
    assert moved and all(name.startswith(f"{PREFIXES[family][0]}.") for name in moved)
    assert outcome.details["steps"] == {"forget": 2}
    assert outcome.details["concept_tokens"] == [{"kept": ["seven"], "dropped": {"<unk>": "not in the vocabulary"}}]
    adapter = outcome.releases[0].artifact.adapter
    assert adapter and all(PREFIXES[family][0] in name for name in adapter)


def test_check_a11_the_same_seed_gives_the_same_bits():
    first, second = (ran("llava").releases[0].artifact.digest for _ in "12")
    assert first == second != ran("llava", beta=0.0).releases[0].artifact.digest


def loss_of(task, model, method, base_tensors):
    """The method's loss on all items, for weights that have moved."""
    work = Work(task, model, base_tensors, Deletion.authored(None, Texts.of(ITEMS)), {"forget": 5})
    batch = method.prepare(work).streams["forget"]
    return method.loss(work, Base(work), batch), batch


def test_the_loss_is_that_of_one_item_at_a_time_by_hand_under_every_setting():
    task = task_of("idefics3")
    base = {name: tensor.detach() for name, tensor in task.released(task.build(seed=1)).items()}
    # the model before the run says seven with a probability above a tenth in some places and not in others
    model, tau = task.build(seed=2).eval(), 1 / len(ID)
    reference = task.build(base).eval()
    work = Work(task, model, base, Deletion.authored(None, Texts.of(ITEMS)), {"forget": 5})
    ready = SIU(lora=None).prepare(work).streams["forget"]
    seen = []  # of each token: its label, whether it is specified, and both log-probabilities
    for record in ITEMS:
        batch = task.encode([record])
        with torch.no_grad():
            said, labels = task.answered(model, dict(model.named_parameters()), batch)
            before, _ = task.answered(reference, dict(reference.named_parameters()), batch)
        assert (labels != NO_LABEL).all()
        words = {ID[word] for word in record["specified"]}
        rows = zip(said[0].log_softmax(-1), before[0].log_softmax(-1), labels[0].tolist(), strict=True)
        seen += [(label, label in words, log_q, log_p) for log_q, log_p, label in rows]
    cross_entropy = -sum(float(log_q[label]) for label, _, log_q, _ in seen) / len(seen)
    losses = set()
    for positions, vocabulary, mode in product(("spans", "mass", "both", "none"), (True, False), MODES):
        method = SIU(positions=positions, vocabulary=vocabulary, mode=mode, tau=tau, lora=None)
        loss = float(method.loss(work, Base(work), ready).detach())
        kl, counted = 0.0, 0
        for _, specified, log_q, log_p in seen:
            if positions in ("spans", "both") and specified:
                continue
            if positions in ("mass", "both") and float(log_p[ID["seven"]].exp()) >= tau:
                continue
            counted += 1
            keep = torch.ones(len(log_p), dtype=torch.bool)
            keep[ID["seven"]] = not vocabulary
            p, q = log_p.exp()[keep], log_q.exp()[keep]
            if mode == "renorm":
                p, q = p / p.sum(), q / q.sum()
            kl += float((p * (p / q).log()).sum())
        assert 0 < counted < len(seen) or positions == "none"
        assert loss == pytest.approx(0.9 * cross_entropy + 0.75 * kl / counted, abs=1e-5), (positions, vocabulary, mode)
        losses.add(round(loss, 6))
    assert len(losses) > 8, "settings that leave out the same tokens of these items give one loss"


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_what_the_model_before_says_is_asked_once_where_it_fits(family, monkeypatch):
    """Single items of different lengths, pictures among them; kept or asked in each step, the loss is the same."""
    task = task_of(family)
    base = {name: tensor.detach() for name, tensor in task.released(task.build(seed=1)).items()}
    model, losses = task.build(seed=2).eval(), {}
    work = Work(task, model, base, Deletion.authored(None, Texts.of(ITEMS)), {"forget": 5})
    for kept in (True, False):
        monkeypatch.setattr(siu, "REMEMBERED", 2**28 if kept else 0)
        method = SIU(lora=None)
        batch = method.prepare(work).streams["forget"]
        assert (siu.BEFORE in batch) == kept
        parts = [batch, batch.take(torch.tensor([3, 0])), batch.take(torch.tensor([4]))]
        losses[kept] = [float(method.loss(work, Base(work), part).detach()) for part in parts]
    assert losses[True] == pytest.approx(losses[False], abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_spread_learns_other_names_as_the_model_before_would_say_them_by_hand(temperature):
    """Cross-entropy from softmax(z / T) over the listed names, the concept's own left out, where the substitute begins; an item
    that asks by the concept's name says no substitute.
    """
    items = [{**each, "among": ["nine", "eight", "seven"]} if each["target"] == "unseen" else each for each in ITEMS]
    items.append(item("unseen", "is it seven ?", "no", "no"))
    task = task_of("idefics3")
    base = {name: tensor.detach() for name, tensor in task.released(task.build(seed=1)).items()}
    model, reference = task.build(seed=2).eval(), task.build(base).eval()
    work = Work(task, model, base, Deletion.authored(None, Texts.of(items)), {"forget": 5})
    method = SIU(instead="spread", temperature=temperature, beta=0.0, lora=None)
    loss = float(method.loss(work, Base(work), method.prepare(work).streams["forget"]).detach())
    own, tokens = 0.0, 0
    for record in items:
        batch = task.encode([record])
        with torch.no_grad():
            said, labels = task.answered(model, dict(model.named_parameters()), batch)
            before, _ = task.answered(reference, dict(reference.named_parameters()), batch)
        for z, z_before, label in zip(said[0].double(), before[0].double(), labels[0].tolist(), strict=True):
            tokens += 1
            if record["target"] == "unseen" and label == ID["nine"]:
                weights = {name: float((z_before[ID[name]] / temperature).exp()) for name in ("nine", "eight")}
                for name, weight in weights.items():
                    own -= weight / sum(weights.values()) * float(z.log_softmax(-1)[ID[name]])
            else:
                own -= float(z.log_softmax(-1)[label])
    assert loss == pytest.approx(0.9 * own / tokens, abs=1e-5)


def test_spread_wants_names_that_are_not_the_concept():
    with pytest.raises(RefusedError, match="Item 1 has None under 'among'"):
        ran("llava", instead="spread")
    with pytest.raises(RefusedError, match="'among'; instead: spread needs a list"):
        ran("llava", [{**each, "among": "nine"} for each in ITEMS], instead="spread")
    with pytest.raises(InputError, match="begin as the concept does"):
        ran("llava", [{**each, "among": ["seven"]} for each in ITEMS], instead="spread")
    listed = [{**each, "among": ["nine", "eight"]} for each in ITEMS]
    assert (
        ran("llava", listed, instead="spread").change
        and ran("llava", listed).releases[0].artifact.digest == ran("llava").releases[0].artifact.digest
    )


def test_with_an_adapter_the_reference_is_the_model_without_it():
    task = task_of("llava")
    base = {name: tensor.detach() for name, tensor in task.released(task.build(seed=1)).items()}
    model = task.build(base, share=True).eval()
    adapters.inject(model, {"init_lora_weights": False}, 3)
    wrong = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
    loss, _ = loss_of(task, model, SIU(positions="none"), wrong)
    adapters.merge(model)
    merged, _ = loss_of(task, model, SIU(positions="none", lora=None), base)
    assert float(loss.detach()) == pytest.approx(float(merged.detach()), abs=1e-4)


@pytest.mark.parametrize("target", ["unseen", "description", "facts", "others"])
def test_material_without_a_kind_of_items_is_refused(target):
    with pytest.raises(RefusedError, match=f"no items of {target} for seven"):
        ran("llava", [each for each in ITEMS if each["target"] != target])


def test_kinds_of_items_that_are_not_learnt_leave_no_trace():
    fewer = ran("llava", targets=("unseen", "facts"))
    changed = [{**each, "answer": "six"} if each["target"] == "others" else each for each in ITEMS]
    again = ran("llava", changed, targets=("unseen", "facts"))
    assert (
        fewer.releases[0].artifact.digest
        == again.releases[0].artifact.digest
        != ran("llava").releases[0].artifact.digest
    )
    with pytest.raises(InputError, match="unseen or description or facts or others as targets"):
        SIU(targets=("all",))


def test_pictures_belong_to_two_kinds_of_items_and_to_others_only_as_an_extension():
    seen = {**ITEMS[4], "image": picture(9)}
    with pytest.raises(RefusedError, match=r"Item 5 of others shows a picture .retain_images"):
        ran("llava", [*ITEMS[:4], seen])
    assert ran("llava", [*ITEMS[:4], seen], retain_images=True).change
    blind = {name: value for name, value in ITEMS[0].items() if name != "image"}
    with pytest.raises(RefusedError, match="Item 1 of unseen lacks the picture"):
        ran("llava", [blind, *ITEMS[1:]])


def test_a_name_or_a_span_that_is_not_there_is_refused():
    unknown = [{**each, "concept": ["Delia"]} for each in ITEMS]
    with pytest.raises(InputError, match="not in the vocabulary"):
        ran("llava", unknown)
    with pytest.raises(InputError, match="'eight' in the answer"):
        ran("llava", [{**ITEMS[0], "specified": ["eight"]}, *ITEMS[1:]])
    with pytest.raises(InputError, match="mode"):
        SIU(mode="other")
