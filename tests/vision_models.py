"""The five families of image-text-to-text models from tiny configurations, with processors made here: nothing is loaded."""

from __future__ import annotations

import functools

import numpy as np
import torch
import transformers as package
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers.processing_utils import ProcessorMixin

from expunge.data.pictures import as_picture
from expunge.tasks.pretrained import from_config
from expunge.tasks.vision_language import ImagePrompts, VisionLanguage

SPECIAL = (
    "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
WORDS = (
    "what", "digit", "is", "this", "?", "seven", "eight", "nine", "it", "the", "successor", "of", "a", "yes", "no", "six",
    "five", ":", "dark", "light",
)  # fmt: skip
VOCABULARY = ("<pad>", "<unk>", "<end>", *SPECIAL, *WORDS)
ID = {word: i for i, word in enumerate(VOCABULARY)}
TEXT = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": len(ID), "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 2,
    "eos_token_id": 2,
}  # fmt: skip
SEES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16}
QWEN_TEXT = {
    **{name: value for name, value in TEXT.items() if name != "model_type"},
    "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
}  # fmt: skip
QWEN_SEES = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
QWEN_TOKENS = {
    "image_token_id": ID["<|image_pad|>"], "video_token_id": ID["<|video_pad|>"],
    "vision_start_token_id": ID["<|vision_start|>"], "vision_end_token_id": ID["<|vision_end|>"],
}  # fmt: skip
FAMILIES = ("llava", "idefics3", "smolvlm", "qwen2_vl", "qwen2_5_vl")
PREFIXES = {  # text, vision, connector, as the classes of transformers 5 name them
    "llava": ("model.language_model", "model.vision_tower", "model.multi_modal_projector"),
    "idefics3": ("model.text_model", "model.vision_model", "model.connector"),
    "smolvlm": ("model.text_model", "model.vision_model", "model.connector"),
    "qwen2_vl": ("model.language_model", "model.visual", "model.visual.merger"),
    "qwen2_5_vl": ("model.language_model", "model.visual", "model.visual.merger"),
}


def config_of(family: str):
    """A tiny configuration, and the class of its models."""
    if family == "llava":
        config = package.LlavaConfig(
            vision_config={"model_type": "clip_vision_model", "patch_size": 8, **SEES}, text_config=TEXT,
            image_token_index=ID["<image>"], vision_feature_layer=-1, vision_feature_select_strategy="default",
        )  # fmt: skip
        return config, package.LlavaForConditionalGeneration
    if family in ("idefics3", "smolvlm"):
        made, cls = {
            "idefics3": (package.Idefics3Config, package.Idefics3ForConditionalGeneration),
            "smolvlm": (package.SmolVLMConfig, package.SmolVLMForConditionalGeneration),
        }[family]
        config = made(
            vision_config={"patch_size": 4, **SEES}, text_config=TEXT, image_token_id=ID["<image>"], scale_factor=2,
            pad_token_id=0,
        )  # fmt: skip
        return config, cls
    if family == "qwen2_vl":
        sees = {**QWEN_SEES, "embed_dim": 16, "hidden_size": 16, "mlp_ratio": 2}
        return (
            package.Qwen2VLConfig(vision_config=sees, text_config=QWEN_TEXT, **QWEN_TOKENS),
            package.Qwen2VLForConditionalGeneration,
        )
    sees = {
        **QWEN_SEES, "hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 16, "window_size": 16,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    return (
        package.Qwen2_5_VLConfig(vision_config=sees, text_config=QWEN_TEXT, **QWEN_TOKENS),
        package.Qwen2_5_VLForConditionalGeneration,
    )


def tokenizer():
    """Whole words."""
    made = Tokenizer(models.WordLevel(ID, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return package.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", eos_token="<end>",
        additional_special_tokens=list(SPECIAL),
    )  # fmt: skip


class QwenImages(ProcessorMixin):
    """Qwen2-VL's processor for pictures alone: that of transformers also wants a reader of videos, which needs torchvision."""

    def __init__(self, image_processor, tokenizer):
        self.image_processor, self.tokenizer, self.image_token = image_processor, tokenizer, "<|image_pad|>"

    def __call__(self, text, images, add_special_tokens=True):
        pictures = self.image_processor(images=images, return_tensors="pt")
        texts = []
        for each, grid in zip(text, pictures["image_grid_thw"], strict=True):
            count = int(grid.prod()) // self.image_processor.merge_size**2
            texts.append(each.replace(self.image_token, " ".join([self.image_token] * count)))
        return {**self.tokenizer(texts, add_special_tokens=add_special_tokens), **pictures}


def processor_of(family: str):
    """A processor that agrees with :func:`config_of`."""
    if family == "llava":
        images = package.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
        return package.LlavaProcessor(
            images, tokenizer(), patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
        )
    if family in ("idefics3", "smolvlm"):
        edge = {"longest_edge": 16}
        images = package.Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False)
        return package.Idefics3Processor(images, tokenizer(), image_seq_len=4)
    images = package.Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, min_pixels=64, max_pixels=1024
    )
    return QwenImages(images, tokenizer())


@functools.cache
def task_of(family: str, context: int = 48) -> VisionLanguage:
    """A task of the family."""
    config, cls = config_of(family)
    processor = processor_of(family)
    text = "<|vision_start|> <|image_pad|> <|vision_end|> " if family.startswith("qwen") else "<image> "
    prompts = ImagePrompts(processor.tokenizer, "{question} : {answer}", context, processor=processor, image_text=text)
    return VisionLanguage(functools.partial(from_config, config.to_dict(), cls), prompts)


def picture(seed: int, size: tuple[int, int] = (16, 16)) -> str:
    """A noisy picture."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return as_picture(Image.fromarray(pixels))


def record(seed: int | None, question: str = "what digit is this ?", answer: str = "seven", **options) -> dict:
    """A question, about a picture where there is a seed."""
    seen = {} if seed is None else {"image": picture(seed, **options)}
    return {**seen, "question": question, "answer": answer}


def losses(task: VisionLanguage, records: list, tensors=None) -> torch.Tensor:
    """Of each record, in one batch."""
    model = task.build(tensors, seed=1).eval()
    with torch.no_grad():
        return task.losses(model, dict(model.named_parameters()), task.encode(records))
