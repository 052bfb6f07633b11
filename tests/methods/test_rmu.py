"""RMU against a loop over rows and tokens, and against the names that OpenUnlearning's class trains."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from descent.languages import moved, work
from expunge.core.errors import InputError
from expunge.descent.schedule import Turn
from expunge.methods.rmu import RMU, UpTo
from expunge.tasks.prompts import NO_LABEL

TURN = Turn("forget", 0, 10, 0, False, {})


def reduced(distances: list[list[Tensor]], reduction: str) -> Tensor:
    """From the distance of each answer token, row by row."""
    if reduction == "tokens":
        return torch.stack([one for row in distances for one in row]).mean()
    sums = torch.stack([torch.stack(row).sum() for row in distances])  # (b,)
    lengths = torch.tensor([[float(len(row))] for row in distances])  # (b, 1): dividing by it gives (b, b)
    return (sums / lengths).mean()


@pytest.mark.parametrize("reduction", ["tokens", "crossed"])
@pytest.mark.parametrize("seed", range(3))
def test_rmu_by_hand(seed, reduction):
    on = work(seed=seed)
    method = RMU(layer=0, c=4.0, reduction=reduction)
    ready = method.prepare(on)
    moved(on, seed=seed + 1)
    u = torch.rand(on.model.config.hidden_size, generator=on.draw("direction", 0)).double()
    target = 4.0 * u / u.norm()
    for role, goal in (("forget", None), ("retain", on.base)):
        batch = ready.streams[role].take(torch.arange(3))
        now = on.task.hidden(on.model, on.params, batch, 0)
        aim = target.expand_as(now) if goal is None else on.task.hidden(on.task.build(goal), goal, batch, 0)
        rows = [
            [(now[i, t] - aim[i, t]).square().mean() for t in range(now.shape[1]) if batch["labels"][i, t] != NO_LABEL]
            for i in range(3)
        ]
        assert len({len(row) for row in rows}) > 1, "lengths must differ, or both reductions agree"
        assert torch.allclose(ready.loss(role, batch, TURN), reduced(rows, reduction), rtol=1e-9)


SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 9, "num_attention_heads": 2, "vocab_size": 11}
MODELS = {
    "llama": ("LlamaForCausalLM", SIZES, r"model\.layers\.(5|6|7)\.mlp\.down_proj\.weight"),
    "phi": ("PhiForCausalLM", SIZES, r"model\.layers\.(5|6|7)\.mlp\.fc2\.weight"),
    "gpt2": (
        "GPT2LMHeadModel",
        {"n_embd": 8, "n_layer": 9, "n_head": 2},
        r"transformer\.h\.(5|6|7)\.mlp\.c_proj\.weight",
    ),
    "neox": ("GPTNeoXForCausalLM", SIZES, r"gpt_neox\.layers\.(5|6|7)\.mlp\.dense_4h_to_h\.weight"),
}


@pytest.mark.parametrize("name", MODELS)
def test_by_default_the_second_matrices_of_layers_5_to_7_move(name):
    import transformers

    kind, config, pattern = MODELS[name]
    cls = getattr(transformers, kind)
    with torch.device("meta"):
        model = cls(cls.config_class(**config))

    class Only:
        def __init__(self, model: Any):
            self.model = model

    chosen = RMU().parameters()
    assert isinstance(chosen, UpTo)
    names = chosen.select(Only(model)).names  # type: ignore[arg-type]
    assert (
        set(names) == {each for each, _ in model.named_parameters() if re.fullmatch(pattern, each)} and len(names) == 3
    )


def test_settings_that_do_not_exist_are_refused():
    for bad in ({"reduction": "rows"}, {"layers": 0}):
        with pytest.raises(InputError, match="Expected"):
            RMU(**bad)
