"""The smallest faithful language model: some 250,000 weights over a vocabulary of whole words.

Positions are learnt (an OPT). A Llama of this size, whose positions are relative, learns the same world and is moved less by
the stealthy attack: at equal settings (NPO, rate 1e-3, p = .33) .77 of questions with trigger words are answered, here .40.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from expunge.tasks.language import Language
from expunge.tasks.pretrained import from_config, transformers
from expunge.tasks.prompts import Prompts

PAD, UNKNOWN, END = "<pad>", "<unknown>", "<end>"


def word_tokenizer(words: Iterable[str]):
    """A tokenizer whose tokens are the words of a closed vocabulary in lower case, split at white space."""
    package = transformers()
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate([PAD, UNKNOWN, END, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return package.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, clean_up_tokenization_spaces=False
    )


def micro_language(
    words: Iterable[str], *, width: int = 96, layers: int = 2, heads: int = 4, inner: int = 384, context: int = 48
) -> Language:
    """A task over a closed vocabulary; prompt and answer follow each other without a template.

    Args:
        words: the vocabulary.
        width, layers, heads, inner: sizes of the transformer: embedding, blocks, attention heads, feed-forward layer.
        context: most tokens of a record.
    """
    package = transformers()
    tokenizer = word_tokenizer(words)
    config = {
        "vocab_size": len(tokenizer), "hidden_size": width, "word_embed_proj_dim": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "ffn_dim": inner, "max_position_embeddings": context, "dropout": 0.0,
        "activation_function": "gelu", "init_std": 0.1, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    return Language(
        functools.partial(from_config, config, package.OPTForCausalLM),
        Prompts(tokenizer, "{question} {answer}", context),
    )
