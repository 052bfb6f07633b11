"""Language models from a local folder, as ``transformers`` saves them, or from a GGUF file in it. Nothing is downloaded."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.errors import ExtraMissingError, InputError, of_the_machine
from expunge.core.texts import CONTEXT, DATE_STRING
from expunge.tasks.folder_check import check_folder, check_size
from expunge.tasks.folder_files import folder_files
from expunge.tasks.language import Language, must_fit
from expunge.tasks.prompts import PLAIN, Prompts


def transformers() -> Any:
    """The package, quiet and offline.

    Raises:
        ExtraMissingError: without the extra ``llm``.
    """
    try:
        import transformers as package
    except ImportError:
        raise ExtraMissingError("llm", "transformers") from None
    package.utils.logging.set_verbosity_error()
    package.utils.logging.disable_progress_bar()
    return package


def load_language_model(
    folder: Path,
    *,
    tokenizer: Path | None = None,
    gguf: str | None = None,
    adapter: Path | None = None,
    template: str | None = None,
    date_string: str = DATE_STRING,
    system: str | None = None,
    context: int = CONTEXT,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    checkpointing: bool = False,
) -> tuple[Language, dict[str, Tensor]]:
    """The task and the weights of a model in ``folder``.

    Args:
        tokenizer: folder of the tokenizer, where the model's own has none.
        gguf: name of a GGUF file in the folder, whose weights are de-quantised to ``dtype``; ``None``: the only one where
            there are no other weights.
        adapter: folder of a PEFT adapter, which is merged into the weights.
        template, date_string, system: see :class:`~expunge.tasks.prompts.Prompts`; without a template, the chat template, or
            ``PLAIN`` where there is none.
        context: most tokens of a row; never more than the model's own.
        device: where the model is placed, as PyTorch writes it.
        checkpointing: compute activations again in the backward pass: less memory, a third more time.

    Raises:
        InputError: if the folder holds no causal language model and tokenizer that belong together, naming what lacks.
    """
    package = transformers()
    words, model = read_model(
        folder, package.AutoTokenizer, package.AutoModelForCausalLM, "a causal language model", dtype, gguf=gguf,
        adapter=adapter, words=tokenizer,
    )  # fmt: skip
    pad = padding_of(words, model.get_input_embeddings().weight.shape[0])
    if template is None and not getattr(words, "chat_template", None):
        template = PLAIN
    limit = getattr(model.config, "max_position_embeddings", context) or context
    task = Language(
        functools.partial(from_config, model.config.to_dict(), type(model)),
        Prompts(words, template, min(context, limit), pad=pad, date_string=date_string, system=system),
        dtype=dtype,
        device=device,
        checkpointing=checkpointing,
        beside=folder_files(model, dtype, words),
    )
    return task, {name: tensor.detach() for name, tensor in Language.released(model).items()}


def read_model(
    folder: Path, reader: Any, auto: Any, what: str, dtype: torch.dtype, *, gguf: str | None = None,
    adapter: Path | None = None, words: Path | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """What turns inputs into numbers (``reader``: AutoTokenizer, AutoProcessor) and the model (``auto``) in ``folder``.

    Args:
        what: what messages call the model.
        gguf, adapter: as :func:`load_language_model`. words: another folder that ``reader`` reads.

    Raises:
        InputError: as :func:`load_language_model`.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the folder of a model (config.json, weights, tokenizer).")
    gguf = gguf or _only_gguf(folder)
    check_folder(folder, gguf)
    with quiet():
        reads = _from(words or folder, "a tokenizer" if "Tokenizer" in reader.__name__ else "a processor", reader)
        config = _from(folder, "a configuration", transformers().AutoConfig)
        if gguf is None:
            check_size(folder, _sizes_of(config, auto))
        model = _from(folder, what, auto, dtype=dtype, gguf_file=gguf)
    if adapter is not None:
        _merge(model, adapter)
    return reads, model


def padding_of(tokenizer: Any, vocabulary: int) -> int | None:
    """The token that fills rows up, where the tokenizer's own was added to it without a row in the model's embedding.

    Filled-up positions are masked, so that training never missed that row; the end token then takes its place.

    Raises:
        InputError: if the tokenizer gives any other token that the model does not have.
    """
    beyond = {token for token in range(vocabulary, len(tokenizer)) if token != tokenizer.pad_token_id}
    must_fit(max(beyond, default=0), vocabulary)
    pad = tokenizer.pad_token_id
    return tokenizer.eos_token_id if pad is not None and pad >= vocabulary else None


def from_config(config: Mapping[str, Any], cls: type) -> nn.Module:
    """A fresh model of an architecture; :func:`functools.partial` of it travels between processes."""
    return cls(cls.config_class(**config))  # type: ignore[attr-defined]


def _only_gguf(folder: Path) -> str | None:
    if any(folder.glob("*.safetensors")):
        return None
    found = sorted(path.name for path in folder.glob("*.gguf"))
    if len(found) > 1:
        raise InputError(f"{folder} holds {len(found)} GGUF files; name one of {', '.join(found)}.")
    return found[0] if found else None


def _sizes_of(config: Any, auto: Any) -> Any:
    """The model without its weights: shapes alone; ``None`` where that fails, which the reader then explains."""
    try:
        with torch.device("meta"):
            return auto.from_config(config, trust_remote_code=False)
    except Exception as error:  # code of many authors: a configuration of odd types fails in any way
        if of_the_machine(error):
            raise
        return None


def _unusable(folder: Path, what: str, error: Exception) -> InputError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(
        f"Expected {what} of transformers in {folder} (config.json, tokenizer, weights as safetensors or GGUF): {reason:.300}"
    )


def _from(folder: Path, what: str, auto: Any, **options: Any) -> Any:
    try:
        # safetensors and GGUF only: a pickled checkpoint could run code
        safe = {"use_safetensors": True} if "dtype" in options and options.get("gguf_file") is None else {}
        given = {name: value for name, value in options.items() if value is not None}
        return auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **safe, **given)
    except ImportError as error:
        raise InputError(f"{folder} cannot be read: {str(error).strip().splitlines()[0]}") from None
    except Exception as error:  # code of many authors: a damaged or odd folder fails in any way
        if of_the_machine(error):
            raise
        raise _unusable(folder, what, error) from None


def _merge(model: nn.Module, folder: Path) -> None:
    import json

    from safetensors.torch import load_file

    from expunge.tasks import adapters

    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not config.is_file() or not weights.is_file():
        raise InputError(f"Expected adapter_config.json and adapter_model.safetensors in {folder}.")
    adapters.put_in(model, json.loads(config.read_text(encoding="utf-8")), load_file(weights))
    adapters.merge(model)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of other packages: they would break machine-readable output."""
    from transformers.utils import logging as theirs

    level = logging.getLogger("transformers").level
    theirs.disable_progress_bar()
    with contextlib.redirect_stderr(_Nowhere()):
        yield
    logging.getLogger("transformers").setLevel(level)


class _Nowhere:
    """Swallows what is written: the GGUF reader's own bar knows no switch."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False
