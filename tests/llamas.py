"""The smallest Llama: rotary positions, shared key-value heads, a vocabulary of whole words."""

from __future__ import annotations

import functools
from typing import Any

from expunge.tasks.language import Language
from expunge.tasks.pretrained import from_config, transformers
from expunge.tasks.prompts import Prompts

TEMPLATE = "{question} {answer}"


def tiny_llama(tokenizer: Any, *, layers: int, positions: int, prompts: Prompts | None = None) -> Language:
    """A task over ``tokenizer``'s words; ``prompts`` where they are not :data:`TEMPLATE` in all of its positions."""
    config = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 32, "max_position_embeddings": positions, "initializer_range": 0.3,
        "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    build = functools.partial(from_config, config, transformers().LlamaForCausalLM)
    return Language(build, prompts or Prompts(tokenizer, TEMPLATE, positions))
