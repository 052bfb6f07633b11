"""Image-text-to-text models of ``transformers``: as language models, whose records may carry a picture each.

Everything that is asked of a language model holds here. A record with ``image`` is put to the model through its processor,
which puts as many image tokens into the prompt as the model makes features of the picture; the columns of a batch hold the
pixels, and ``has_image`` says which rows have some.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.texts import Record
from expunge.core.turns import turns_of
from expunge.data.pictures import IMAGE, picture_of
from expunge.data.texts import Texts
from expunge.tasks.language import Language
from expunge.tasks.prompts import Prompts

HAS_IMAGE, TOKEN_TYPES = "has_image", "mm_token_type_ids"
PATCHES = "image_grid_thw"  # Qwen2-VL and later: how many patches a picture has each way; they lie one after another
REMEMBERED = 20_000  # pictures whose pixels are kept ready


@dataclass(frozen=True)
class ImagePrompts(Prompts):
    """How a record with or without a picture is put to a model.

    Attributes:
        processor: of the model, as ``transformers`` has it; its tokenizer is :attr:`tokenizer`.
        image_text: what stands for the picture before the question where a template is used; ``None``: the processor's image
            token and a line break, as LLaVA 1.5 (arXiv 2310.03744) was trained.
    """

    processor: Any = None
    image_text: str | None = None
    _pixels: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False, compare=False)
    _tokens_of: dict[tuple[str, tuple[int, int]], list[int]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self):
        super().__post_init__()
        if self.processor is None or getattr(self.processor, "image_processor", None) is None:
            raise InputError(
                "Expected a processor with an image processor; got none. Take language for a model of text."
            )

    def tokens(self, records: Sequence[Record]) -> list[tuple[list[int], int]]:
        """As :meth:`Prompts.tokens`; the image tokens of a record lie in its prompt, which is never cut.

        Raises:
            InputError: also for a picture that cannot be read, or one whose tokens do not all lie in the prompt.
        """
        images = [picture_of(record, f"record {i}") for i, record in enumerate(records, 1)]
        seeing = [i for i, image in enumerate(images) if image is not None]
        blind = [i for i, image in enumerate(images) if image is None]
        found: dict[int, tuple[list[int], int]] = {}
        if blind:
            found |= zip(blind, super().tokens([records[i] for i in blind]), strict=True)
        for i in seeing:
            prompt = self.asked_of(records[i])
            start = self._expanded(prompt, images[i])
            whole = self._expanded(prompt + self._after(records[i]), images[i])
            if whole[: len(start)] != start:
                raise InputError(
                    f"In record {i + 1} the end of the prompt and the beginning of the answer share a token. End the "
                    "template's prompt with a character that the tokenizer keeps apart (a colon, a line break)."
                )
            found[i] = ([*whole, self.end_token][: self.context], len(start))
        return [found[i] for i in range(len(records))]

    def asked_of(self, record: Record) -> str:
        """What the model reads before it answers: of a record with a picture, with what stands for it."""
        if IMAGE not in record:
            return self.question(record["question"])
        if self.template is not None:
            text = f"{self.processor.image_token}\n" if self.image_text is None else self.image_text
            return text + self.question(record["question"])
        return self._conversation(turns_of(record["question"]), {"type": "image"}).removesuffix(self.space)

    @property
    def chat_template(self) -> str | None:
        """That of the processor, or else of its tokenizer."""
        return getattr(self.processor, "chat_template", None) or super().chat_template

    def _chat(self, turns: list[dict[str, str]]) -> str:
        return self._conversation(turns) if getattr(self.processor, "chat_template", None) else super()._chat(turns)

    def _conversation(self, turns: Sequence[Mapping[str, str]], *before: Mapping[str, str]) -> str:
        """Turns as a processor has them, with ``before`` in front of the words of the turn that is answered."""
        typed = [{"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        typed[-1]["content"] = [*before, *typed[-1]["content"]]
        system = None if self.system is None else [{"type": "text", "text": self.system}]
        return self._said(self.processor, typed, system)

    def encode(self, records: Sequence[Record]) -> dict[str, Tensor]:
        """As :meth:`Prompts.encode`, with the pixels of each record and ``has_image``; zeros where there is no picture.

        Shapes:
            has_image (n,) bool; pixel_values (n, …) and whatever else the image processor gives, filled up with zeros to the
            largest. Without any picture there are none of these columns.
        """
        return super().encode(records) | self.pixels(records)

    def pixels(self, records: Sequence[str | Record]) -> dict[str, Tensor]:
        """The columns of :meth:`encode` that hold pictures; a question that is no record has none."""
        seen = [self._seen(each) if not isinstance(each, str) and IMAGE in each else None for each in records]
        columns = {HAS_IMAGE: torch.tensor([each is not None for each in seen])}
        first = next((each for each in seen if each is not None), None)
        for name in first or ():
            columns[name] = _filled_up([None if each is None else each[name] for each in seen])
        return columns

    def prompt_tokens(self, asked: Sequence[str | Record]) -> list[list[int]]:
        """As :meth:`Prompts.prompt_tokens`; of a record with a picture with its image tokens."""
        tokens = super().prompt_tokens(asked)
        for i, each in enumerate(asked):
            if not isinstance(each, str) and (image := picture_of(each, f"record {i + 1}")) is not None:
                tokens[i] = self._expanded(self.asked_of(each), image)
        return tokens

    def _expanded(self, text: str, image: Any) -> list[int]:
        """Tokens of ``text`` with as many image tokens as ``image`` has features, which depends on its size; no end token."""
        key = (text, image.size)
        if key not in self._tokens_of:
            if len(self._tokens_of) >= REMEMBERED:
                self._tokens_of.pop(next(iter(self._tokens_of)))
            try:
                said = self.processor(text=[text], images=[[image]], add_special_tokens=self.template is not None)
            except (ValueError, TypeError) as error:
                raise InputError(
                    f"The processor does not take a picture with this prompt: {str(error)[:200]}"
                ) from None
            ids = list(said["input_ids"][0])
            closed = self.template is not None and ids[-1] == self.tokenizer.eos_token_id
            self._tokens_of[key] = ids[:-1] if closed else ids
        return self._tokens_of[key]

    def _seen(self, record: Record) -> dict[str, Tensor]:
        """What the image processor makes of the picture of ``record``, without the axis of one picture."""
        key = record[IMAGE]
        if key not in self._pixels:
            if len(self._pixels) >= REMEMBERED:
                self._pixels.pop(next(iter(self._pixels)))
            given = self.processor.image_processor(images=[[picture_of(record)]], return_tensors="pt")
            tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
            flat = PATCHES in tensors  # patches of all pictures one after another: there is no axis of pictures
            self._pixels[key] = {n: t if flat and n == "pixel_values" else t[0] for n, t in tensors.items()}
        return self._pixels[key]


@dataclass(frozen=True)
class VisionLanguage(Language):
    """Runs image-text-to-text models on :class:`~expunge.data.texts.Texts` whose records may carry pictures."""

    name: str = "vision_language"

    def inputs(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """As for a language model, with the pixels of the rows that have some; none where no row has."""
        return super().inputs(model, batch) | self._beside(model, batch, batch["input_ids"])

    def seen(self, model: nn.Module, asked: Sequence[str | Record], ids: Tensor) -> dict[str, Any]:
        """The pictures of ``asked``, as generation takes them."""
        assert isinstance(self.prompts, ImagePrompts)
        pixels = {name: tensor.to(self.device) for name, tensor in self.prompts.pixels(asked).items()}
        return self._beside(model, Batch(pixels), ids)

    def _beside(self, model: nn.Module, batch: Batch, ids: Tensor) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        known, seeing = _parameters(model), batch[HAS_IMAGE].nonzero().squeeze(1)
        if TOKEN_TYPES in known:
            inputs[TOKEN_TYPES] = (ids == image_token(model)).long()
        if not len(seeing):
            return inputs
        for name in ("pixel_values", "pixel_attention_mask", PATCHES, "image_sizes"):
            if name in batch and name in known:
                inputs[name] = batch[name].index_select(0, seeing)
        if PATCHES in inputs:
            counts = inputs[PATCHES].prod(1).tolist()
            rows = zip(inputs["pixel_values"], counts, strict=True)
            inputs["pixel_values"] = torch.cat([patches[:count] for patches, count in rows])
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        return inputs

    def check(self, data: Texts) -> None:
        """Whether tokens fit the vocabulary, every record has room for an answer, and processor and model agree on pictures.

        Raises:
            InputError: with the token or the record that does not fit, or both counts of a picture.
        """
        super().check(data)
        if record := next((record for record in data.records if IMAGE in record), None):
            self.must_agree(record)

    def must_agree(self, record: Record) -> None:
        """Whether the processor writes as many image tokens as the model makes features of a picture.

        Raises:
            InputError: where it does not.
        """
        model, batch = self.build().eval(), self.encode([record])
        written = int((batch["input_ids"] == image_token(model)).sum())
        try:
            with torch.no_grad():
                self.losses(model, dict(model.named_parameters()), batch)
        except (ValueError, RuntimeError, IndexError) as error:
            raise InputError(
                f"The processor and the model do not belong together: the processor writes {written} image tokens for a "
                f"picture, and the model refuses them ({str(error).strip().splitlines()[0]:.200}). Compare patch_size, "
                "vision_feature_select_strategy, num_additional_image_tokens and the image size of both, or load them from one "
                "folder."
            ) from None
        if not written:
            raise InputError(
                "The processor writes no image token that the model knows: the picture would not be seen. Load both from one "
                "folder, and see that the template holds the picture."
            )

    def pair(self, first: Texts, second: Texts) -> Texts:
        """As for language models; of two pictures a joint prompt could hold only one.

        Raises:
            InputError: where ``first`` has pictures.
        """
        if any(IMAGE in record for record in first.records):
            raise InputError(
                "Joint prompts hold one picture: that of the retained question. Take the method without su."
            )
        joint = super().pair(first, second)
        return joint.worded(
            [
                {**record, IMAGE: old[IMAGE]} if IMAGE in old else record
                for record, old in zip(joint.records, second.records, strict=True)
            ]
        )


def image_token(model: nn.Module) -> int:
    """The token that stands for a part of a picture."""
    config: Any = model.config
    found = getattr(config, "image_token_id", None)
    return int(config.image_token_index if found is None else found)


def _parameters(model: nn.Module) -> Mapping[str, Any]:
    return inspect.signature(model.forward).parameters


def _filled_up(tensors: Sequence[Tensor | None]) -> Tensor:
    """One tensor of all, each filled up with zeros to the largest; zeros for none."""
    there = [tensor for tensor in tensors if tensor is not None]
    shape = [max(tensor.shape[axis] for tensor in there) for axis in range(there[0].dim())]
    filled = there[0].new_zeros((len(tensors), *shape))
    for row, tensor in zip(filled, tensors, strict=True):
        if tensor is not None:
            row[tuple(slice(size) for size in tensor.shape)] = tensor
    return filled
