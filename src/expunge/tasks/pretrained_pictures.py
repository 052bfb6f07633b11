"""Image-text-to-text models from a local folder, as ``transformers`` saves them. Nothing is downloaded."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.texts import CONTEXT, DATE_STRING
from expunge.tasks.folder_files import folder_files
from expunge.tasks.model_parts import model_parts
from expunge.tasks.pretrained import from_config, padding_of, read_model, transformers
from expunge.tasks.prompts import PLAIN
from expunge.tasks.vision_language import ImagePrompts, VisionLanguage


def load_vision_language_model(
    folder: Path,
    *,
    adapter: Path | None = None,
    template: str | None = None,
    image_text: str | None = None,
    date_string: str = DATE_STRING,
    system: str | None = None,
    context: int = CONTEXT,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    checkpointing: bool = False,
) -> tuple[VisionLanguage, dict[str, Tensor]]:
    """The task and the weights of a model in ``folder`` (``AutoModelForImageTextToText`` and ``AutoProcessor``).

    Args:
        adapter: folder of a PEFT adapter, which is merged into the weights.
        template, date_string, system: see :class:`~expunge.tasks.prompts.Prompts`; without a template, the processor's chat
            template, or ``PLAIN`` where there is none.
        image_text: see :class:`~expunge.tasks.vision_language.ImagePrompts`.
        context: most tokens of a row, those of a picture among them; never more than the model's own.
        device, checkpointing: as :func:`~expunge.tasks.pretrained.load_language_model`.

    Raises:
        InputError: if the folder holds no such model and processor that belong together, naming what lacks; whether they agree
            on pictures is found out with the first record that has one (:meth:`VisionLanguage.must_agree`).
    """
    package = transformers()
    processor, model = read_model(
        folder, package.AutoProcessor, package.AutoModelForImageTextToText, "an image-text-to-text model", dtype,
        adapter=adapter,
    )  # fmt: skip
    if model_parts(model) is None:
        raise InputError(
            f"Expected a model in {folder} with a part that reads text and one that sees; {type(model).__name__} shows none."
        )
    tokenizer: Any = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise InputError(
            f"Expected a processor with a tokenizer and an image processor in {folder}; it has no tokenizer."
        )
    if template is None and not getattr(processor, "chat_template", None):
        template = PLAIN
    text = model.config.get_text_config()
    limit = getattr(text, "max_position_embeddings", context) or context
    rows = model.get_input_embeddings().weight.shape[0]
    prompts = ImagePrompts(
        tokenizer, template, min(context, limit), pad=padding_of(tokenizer, rows), date_string=date_string, system=system,
        processor=processor, image_text=image_text,
    )  # fmt: skip
    task = VisionLanguage(
        functools.partial(from_config, model.config.to_dict(), type(model)),
        prompts,
        dtype=dtype,
        device=device,
        checkpointing=checkpointing,
        beside=folder_files(model, dtype, tokenizer, processor),
    )
    return task, {name: tensor.detach() for name, tensor in VisionLanguage.released(model).items()}
