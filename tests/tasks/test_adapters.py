"""Adapters beside frozen weights: nothing else moves, nothing is copied, and every way back is exact (LLM spec check A6)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cases import CASES, facts, forget_facts, method, small_language
from expunge import planning
from expunge.core.errors import InputError
from expunge.methods.by_language import LanguageMethod
from expunge.methods.registry import settings_names
from expunge.tasks import adapters

SETTINGS: list[dict[str, Any]] = [
    {}, {"r": 4, "lora_alpha": 16}, {"r": 2, "use_dora": True}, {"r": 2, "use_rslora": True, "lora_dropout": 0.3},
    {"r": 2, "target_modules": ["q_proj", "down_proj"]}, {"r": 2, "target_modules": r".*\.0\..*(gate|up)_proj"},
    {"r": 2, "layers_to_transform": [1], "target_modules": ["v_proj"]}, {"r": 2, "init_lora_weights": "orthogonal"},
    {"r": 4, "rank_pattern": {"q_proj": 1}, "init_lora_weights": "gaussian"},
]  # fmt: skip
EVERY_SETTING = pytest.mark.parametrize("settings", SETTINGS, ids=str)


@functools.cache
def base() -> dict[str, Tensor]:
    """Weights of a model of two layers; nothing may change them."""
    return {
        name: tensor.detach().clone() for name, tensor in (small_language(layers=2).build(seed=3)).state_dict().items()
    }


def model(share: bool = False) -> nn.Module:
    return small_language(layers=2).build(base(), share=share)


def said(module: nn.Module) -> Tensor:
    """Its logits on a few rows."""
    rows = small_language().batch(facts().first(5))
    with torch.no_grad():
        return module.eval()(input_ids=rows["input_ids"]).logits


def trained(settings: dict[str, Any], seed: int = 0, share: bool = False) -> nn.Module:
    """A model whose adapter went somewhere."""
    module = model(share)
    names = adapters.inject(module, settings, seed)
    draw = torch.Generator().manual_seed(seed)
    named = dict(module.named_parameters())
    with torch.no_grad():
        for name in names:
            named[name].add_(0.1 * torch.randn(named[name].shape, generator=draw))
    return module


def apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


# --- beside the weights -------------------------------------------------------------------------------------------------


@EVERY_SETTING
def test_a6_before_the_first_step_it_says_what_the_base_says(settings):
    module = model()
    names = adapters.inject(module, settings)
    rounds = "use_dora" in settings or settings.get("init_lora_weights") == "orthogonal"
    assert names and apart(said(module), said(model())) <= (1e-6 if rounds else 0)
    assert {name for name, tensor in module.named_parameters() if tensor.requires_grad} == set(names)
    assert all("lora_" in name for name in names)


@EVERY_SETTING
def test_a6_the_adapter_is_never_outside_the_chosen_modules(settings):
    module = model()
    names = adapters.inject(module, settings)
    linear = {name for name, part in model().named_modules() if isinstance(part, nn.Linear)}
    adapted = {name.partition(".lora_")[0] for name in names}
    assert adapted == set(adapters.layers(module)) and adapted <= linear - {"lm_head"}
    match settings.get("target_modules"):
        case None:
            assert adapted == linear - {"lm_head"} and len(adapted) == 14
        case list(ends):
            layers = settings.get("layers_to_transform", [0, 1])
            assert {(int(name.split(".")[2]), name.rpartition(".")[2]) for name in adapted} == {
                (layer, end) for layer in layers for end in ends
            }
        case _:
            assert adapted == {"model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [*(("npo", each) for each in SETTINGS), ("npo+su+dual", {}), ("rmu", {"r": 2, "use_dora": True})],
)
def test_a6_a_run_leaves_the_backbone_bitwise_as_it_was_and_copies_nothing(name, settings, monkeypatch):
    task = small_language(layers=2)
    ready = planning.adopt(task, base(), facts())
    before = {each: (tensor.data_ptr(), tensor.clone()) for each, tensor in ready.artifact.tensors.items()}
    seen: dict[str, Tensor] = {}
    plainly = adapters.adapter_tensors

    def watched(module: nn.Module) -> dict[str, Tensor]:  # called at the end of a run, before the adapter is merged
        seen.update({each.replace(".base_layer", ""): tensor for each, tensor in module.named_parameters()})
        return plainly(module)

    monkeypatch.setattr(adapters, "adapter_tensors", watched)
    outcome = planning.plan(ready, forget_facts(1), method(name, lora=settings, steps=2)).run()
    artifact = outcome.releases[0].artifact
    for each, (place, tensor) in before.items():
        assert seen[each].data_ptr() == place == ready.artifact.tensors[each].data_ptr()
        assert torch.equal(seen[each], tensor) and torch.equal(ready.artifact.tensors[each], tensor)
    trainable = {each for each in seen if each not in before}
    assert outcome.details["trainable"] == sum(tensor.numel() for tensor in artifact.adapter.values())
    assert outcome.details["trainable"] == sum(seen[each].numel() for each in trainable)
    changed = {each for each, size in outcome.change.items() if size > 0}
    assert changed and changed <= {f"{each.partition('.lora_')[0]}.weight" for each in trainable}
    again = task.build(ready.artifact.tensors)  # the adapter on the base says what the merged release says
    adapters.put_in(again, artifact.extra["adapter"], artifact.adapter)
    assert apart(said(again), said(task.build(artifact.tensors))) < 1e-5
    adapters.remove(again)
    assert torch.equal(said(again), said(model()))


# --- ways back ----------------------------------------------------------------------------------------------------------


@EVERY_SETTING
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a6_removed_merged_and_switched_off(settings, seed):
    module = trained(settings, seed, share=True)
    with_adapter, without = said(module), said(model())
    assert apart(with_adapter, without) > 1e-3
    needed = {name: tensor.requires_grad for name, tensor in module.named_parameters()}
    with adapters.switched_off(module):
        assert torch.equal(said(module), without)
    assert torch.equal(said(module), with_adapter)
    assert needed == {name: tensor.requires_grad for name, tensor in module.named_parameters()}
    merged = trained(settings, seed, share=True)
    adapters.merge(merged)
    assert apart(said(merged), with_adapter) < 1e-5 and not adapters.has_adapter(merged)
    assert merged.state_dict().keys() == base().keys()
    assert all(tensor.requires_grad for tensor in merged.parameters())
    adapters.remove(module)
    assert torch.equal(said(module), without) and module.state_dict().keys() == base().keys()
    assert all(torch.equal(tensor, model().state_dict()[name]) for name, tensor in module.state_dict().items())
    assert all(tensor.requires_grad for tensor in module.parameters())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("settings", [{"r": 4}, {"r": 4, "use_rslora": True}])
def test_a6_merging_and_taking_the_same_away_again_is_exact_to_a_millionth(settings, seed):
    module = trained(settings, seed)
    deltas = {
        f"{name}.weight": layer.get_delta_weight("default").detach() for name, layer in adapters.layers(module).items()
    }
    adapters.merge(module)
    back = {name: tensor - deltas[name] if name in deltas else tensor for name, tensor in module.state_dict().items()}
    assert len(deltas) == 14 and max(apart(back[name], tensor) for name, tensor in base().items()) < 1e-6


@EVERY_SETTING
def test_a6_stored_under_peft_names_it_says_the_same_in_a_fresh_model(settings, tmp_path):
    module = trained(settings, 4)
    stored = json.loads(json.dumps(adapters.adapter_settings(module)))
    tensors = adapters.adapter_tensors(module)
    assert all(name.startswith("base_model.model.model.layers.") and ".lora_" in name for name in tensors)
    fresh = model()
    adapters.put_in(fresh, stored, tensors)
    assert torch.equal(said(fresh), said(module))
    with pytest.raises(InputError, match="has an adapter already"):
        adapters.put_in(fresh, stored, tensors)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a6_peft_reads_ours_and_we_read_peft_s(tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors.torch import save_file

    module = trained({"r": 4, "target_modules": ["q_proj", "v_proj"]})
    ours: Path = tmp_path / "ours"
    ours.mkdir()
    save_file(adapters.adapter_tensors(module), ours / "adapter_model.safetensors")
    (ours / "adapter_config.json").write_text(json.dumps(adapters.adapter_settings(module)))
    assert apart(said(PeftModel.from_pretrained(model(), str(ours))), said(module)) < 1e-6
    theirs = get_peft_model(model(), LoraConfig(r=3, target_modules=["up_proj"], init_lora_weights=False))
    theirs.save_pretrained(str(tmp_path / "theirs"))
    told = json.loads((tmp_path / "theirs" / "adapter_config.json").read_text())
    fresh = model()
    adapters.put_in(
        fresh, {**told, "a_later_setting": None}, load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    )
    assert apart(said(fresh), said(theirs)) < 1e-6 and apart(said(fresh), said(model())) > 1e-3
    with pytest.raises(InputError, match="Expected an adapter of type LORA; this one is of type IA3"):
        adapters.put_in(model(), {**told, "peft_type": "IA3"}, {})


@pytest.mark.parametrize("other", [{"width": 16}, {"layers": 1}, {"layers": 3}])
def test_a6_an_adapter_of_another_model_is_refused(other):
    foreign = small_language(**{"layers": 2, **other}).build(seed=1)
    adapters.inject(foreign, {"r": 2, "target_modules": ["q_proj"]})
    with pytest.raises(
        InputError, match=r"The adapter belongs to another model: .*Load it on the model it was trained for\."
    ):
        adapters.put_in(model(), adapters.adapter_settings(foreign), adapters.adapter_tensors(foreign))


# --- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"rank": 8}, r"LoRA settings .*rank.* cannot be used"),
        ({"r": 0}, r"(cannot be used|No adapter can be put)"),
        ({"target_modules": ["qqq"]}, "No adapter can be put into this model"),
        ({"bias": "all"}, "bias would change the model's own weights"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save would change"),
        ({"init_lora_weights": "pissa", "target_modules": ["q_proj"]}, "init_lora_weights would change"),
        ({"init_lora_weights": "olora", "target_modules": ["q_proj"]}, "init_lora_weights would change"),
        ({"lora_bias": True}, "lora_bias needs layers with a bias"),
        ({"target_modules": ["embed_tokens"]}, "is another layer's too"),
    ],
    ids=str,
)
def test_settings_that_would_touch_the_model_itself_or_fit_nothing_are_refused(settings, match):
    module = model(share=True)
    before = {name: tensor.clone() for name, tensor in base().items()}
    with pytest.raises(InputError, match=match):
        adapters.inject(module, settings)
    assert all(torch.equal(before[name], tensor) for name, tensor in base().items())


def test_an_adapter_is_drawn_by_its_seed_and_moves_no_other_draw():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    drawn = [adapters.adapter_tensors(trained({"r": 2}, seed)) for seed in (0, 0, 1)]
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert any(not torch.equal(drawn[0][name], drawn[2][name]) for name in drawn[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_case_has_methods_that_take_an_adapter():
    assert all(
        isinstance(method(name), LanguageMethod) == ("lora" in settings_names(name))
        for name in CASES["language"].serves
    )


OPT = {"vocab_size": 32, "hidden_size": 16, "word_embed_proj_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
       "ffn_dim": 32, "max_position_embeddings": 32, "dropout": 0.0}  # fmt: skip
GPT2 = {"vocab_size": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "resid_pdrop": 0.0,
        "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "shape", "settings", "count"),
    [("OPT", OPT, {"lora_bias": True}, 6), ("OPT", OPT, {}, 6), ("GPT2", GPT2, {"fan_in_fan_out": True}, 4)],
)
def test_a6_linear_layers_of_other_architectures(kind, shape, settings, count):
    import transformers

    config = getattr(transformers, f"{kind}Config")(**shape)
    cls = getattr(transformers, f"{kind}ForCausalLM" if kind == "OPT" else "GPT2LMHeadModel")
    module = cls(config)
    before = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    held = dict(module.named_parameters())
    without = said(module)
    names = adapters.inject(module, {"r": 2, **settings})
    assert len(adapters.layers(module)) == count and torch.equal(said(module), without)
    named = dict(module.named_parameters())
    with torch.no_grad():
        for name in names:
            named[name].add_(0.1)
    moved = said(module)
    adapters.merge(module)
    assert apart(said(module), moved) < 1e-5 and apart(moved, without) > 1e-3
    assert all(torch.equal(held[name], before[name]) for name in held)  # the old tensors are another model's


# --- published shapes ---------------------------------------------------------------------------------------------------


LLAMA = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
         "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True}  # fmt: skip
MISTRAL = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 32768, "tie_word_embeddings": False}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape", "published"),
    [("Llama", LLAMA, 11_272_192), ("Mistral", MISTRAL, 41_943_040)],
    ids=["Llama-3.2-1B", "Mistral-7B"],
)
def test_a6_trainable_counts_of_published_models_follow_the_formula(name, shape, published):
    import transformers

    config = getattr(transformers, f"{name}Config")(**shape)
    with torch.device("meta"):
        module = getattr(transformers, f"{name}ForCausalLM")(config)
        names = adapters.inject(module, {"r": 16})
    named = dict(module.named_parameters())
    h, i, kv = config.hidden_size, config.intermediate_size, config.num_key_value_heads * config.head_dim
    formula = config.num_hidden_layers * 16 * (2 * (h + h) + 2 * (h + kv) + 3 * (h + i))
    assert sum(named[each].numel() for each in names) == formula == published
