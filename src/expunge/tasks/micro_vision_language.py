"""The smallest faithful model that sees: a LLaVA of some 0.4 million weights over a vocabulary of whole words."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch

from expunge.tasks.folder_files import folder_files
from expunge.tasks.micro_language import word_tokenizer
from expunge.tasks.pretrained import from_config, transformers
from expunge.tasks.vision_language import ImagePrompts, VisionLanguage

IMAGE_TOKEN = "<image>"


def micro_vision_language(
    words: Iterable[str], *, side: int = 24, patch: int = 6, width: int = 96, sees: int = 80, layers: int = 2, heads: int = 4,
    inner: int = 256, context: int = 64, dtype: torch.dtype = torch.float32,
) -> VisionLanguage:  # fmt: skip
    """A task over a closed vocabulary: picture, question and answer follow each other.

    Args:
        words: the vocabulary.
        side, patch: pixels of a picture and of a patch each way.
        width, sees: of the part that reads text, and of the vision tower.
        layers, heads: of both parts.
        inner: width of the feed-forward layers of the part that reads text; the vision tower has twice its own width.
        context: most tokens of a record, those of the picture among them.
        dtype: of the weights. What is released is a folder of ``transformers`` in it.
    """
    package = transformers()
    tokenizer = word_tokenizer(words)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    tokenizer.image_token = IMAGE_TOKEN
    config = package.LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model", "image_size": side, "patch_size": patch, "hidden_size": sees,
            "intermediate_size": 2 * sees, "num_hidden_layers": layers, "num_attention_heads": heads,
        },
        text_config={
            "model_type": "llama", "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": len(tokenizer),
            "max_position_embeddings": context, "tie_word_embeddings": True, "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
        },
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), vision_feature_layer=-1,
        vision_feature_select_strategy="default", image_seq_length=(side // patch) ** 2, tie_word_embeddings=True,
    )  # fmt: skip
    images = package.CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor = package.LlavaProcessor(
        images, tokenizer, patch_size=patch, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    prompts = ImagePrompts(tokenizer, "{question} {answer}", context, processor=processor, image_text=f"{IMAGE_TOKEN} ")
    factory = functools.partial(from_config, config.to_dict(), package.LlavaForConditionalGeneration)
    with torch.device("meta"):
        shape = factory()
    return VisionLanguage(factory, prompts, dtype=dtype, beside=folder_files(shape, dtype, tokenizer, processor))
