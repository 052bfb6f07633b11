"""What a run takes, LLM spec 2.5 and check C7."""

from __future__ import annotations

import time

import pytest
import torch

from expunge import planning
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.data.texts import Texts
from expunge.methods import by_language, registry
from expunge.tasks import adapters, language_cost
from expunge.tasks.language_cost import activation_bytes, count, matmul_rate, run_cost, shape_of, state_bytes
from expunge.tasks.micro_language import micro_language
from expunge.tasks.pretrained import transformers


@pytest.fixture(scope="module")
def llama_1b():
    """The architecture of Llama-3.2-1B with an adapter, without memory; and its own number of weights."""
    package = transformers()
    config = package.LlamaConfig(
        vocab_size=128256, hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=8192, tie_word_embeddings=True,
    )  # fmt: skip
    model = shape_of(lambda: package.LlamaForCausalLM(config))
    full, moving = count(model)
    assert full == moving
    adapters.inject(model, {"r": 16, "lora_alpha": 16})
    return model, full


def test_check_c7_state_of_an_adapter_on_llama_1b_is_a_seventh_of_full_training(llama_1b):
    model, full = llama_1b
    assert full == 1_235_814_400 and all(tensor.is_meta for tensor in model.parameters())
    weights, trainable = count(model)
    assert trainable == 11_272_192 and weights == full + trainable
    assert trainable / full < 0.01
    assert state_bytes(weights, trainable) == 2 * full + 16 * trainable
    assert state_bytes(weights, trainable) / state_bytes(full, full) <= 0.15
    # in single precision the weights themselves are a quarter of everything: (4 + 16 t) / 16, and no adapter gets below
    ratio = state_bytes(weights, trainable, "float32") / state_bytes(full, full, "float32")
    assert ratio == pytest.approx(0.25 + trainable / full) and 0.25 < ratio < 0.27
    assert state_bytes(10, 10) == 160 and state_bytes(10, 10, "float64") == 320


def test_check_c7_an_adapter_saves_state_but_neither_activations_nor_much_time(llama_1b):
    model, weights = llama_1b[0], count(llama_1b[0])[0]
    sizes = {"rows": 8, "length": 256, "steps": 10, "precision": "mixed"}
    full = run_cost(model, **sizes, trainable=weights)
    again = run_cost(model, **sizes, trainable=weights, checkpointing=True)
    small = run_cost(model, **sizes, rate=1e12)
    assert small.activation_bytes == full.activation_bytes > 3 * again.activation_bytes
    assert 0.6 < small.flops / full.flops < 0.7 and again.flops > full.flops
    assert full.seconds is None and small.seconds == pytest.approx(small.flops / 1e12)
    assert (
        small.state_bytes / full.state_bytes < 0.15 < small.bytes / full.bytes
    )  # the peak shrinks less than the state


@pytest.mark.parametrize("architecture", ["llama", "opt"])
@pytest.mark.parametrize("shape", [(96, 2, 256, 4, 16, 20), (64, 4, 172, 8, 8, 64), (128, 2, 512, 4, 4, 128)])
def test_activations_are_within_a_quarter_of_what_pytorch_keeps(shape, architecture):
    width, layers, inner, heads, rows, length = shape
    sizes = {"vocab_size": 99, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    if architecture == "llama":
        config = transformers().LlamaConfig(**sizes, num_key_value_heads=heads // 2, intermediate_size=inner)
        model = transformers().LlamaForCausalLM(config).train()
    else:
        config = transformers().OPTConfig(**sizes, word_embed_proj_dim=width, ffn_dim=inner, activation_function="gelu")
        model = transformers().OPTForCausalLM(config).train()
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept, alive = {}, []

    def pack(tensor):
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = model.model(input_ids=torch.full((rows, length), 5), use_cache=False).last_hidden_state
    assert held.requires_grad
    found = activation_bytes(model.config, rows, length)
    assert 0.75 < sum(kept.values()) / found < 1.25


def test_a_rate_is_measured_and_nonsense_is_refused():
    assert matmul_rate() > 1e8 and matmul_rate() == matmul_rate()
    with pytest.raises(InputError, match="precision"):
        state_bytes(4, 4, "float8")
    with pytest.raises(InputError, match="trainable"):
        state_bytes(4, 5)
    with pytest.raises(InputError, match="at least 1"):
        run_cost(shape_of(micro_language(["a"]).factory), rows=1, length=0, steps=1)


@pytest.mark.slow
def test_the_seconds_of_an_estimate_are_within_a_factor_of_two_of_the_steps_they_speak_of(monkeypatch):
    """By processor time of one thread, which other load hardly stretches; the middle of three runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(language_cost.time, "perf_counter", time.process_time)
    task = micro_language(
        ["who", "is", *(f"p{i}" for i in range(40)), *(f"a{i}" for i in range(40))], width=64, inner=256
    )
    records = tuple({"question": f"who is p{i}", "answer": f"a{i}"} for i in range(40))
    trained = planning.adopt(task, task.build(), Texts.of(records))
    request = Request("somebody", (Target("samples", {"ids": list(range(16))}),))
    ratios = []
    for seed in range(3):
        by_language._TIMED.clear()
        method = registry.make("grad_diff", {"steps": 20, "batch_size": 8, "warmup": 0.1})
        plan = planning.plan(trained, request, method, seed=seed)
        started = time.process_time()
        plan.run_uncounted()
        ratios.append(plan.estimate.cost["seconds"] / (time.process_time() - started))
    torch.set_num_threads(threads)
    assert 0.5 < sorted(ratios)[1] < 2, ratios
