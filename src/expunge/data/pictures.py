"""Pictures inside records: ``{"image": "data:image/png;base64,…", "question": …, "answer": …}``.

A record that carries its picture is complete: it can be digested, sliced and recognised again like any other, and no file can
change beneath it.
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError, foreign
from expunge.core.texts import Record
from expunge.data.damage import PILLOW

IMAGE = "image"  # key of a record
MOST_PIXELS = 50_000_000  # of one picture; a photograph has up to 50 million. Our choice
_HEAD = "data:image/png;base64,"


def as_picture(image: Any) -> str:
    """A PIL image as what stands under ``image`` in a record: PNG, so that no pixel changes.

    Raises:
        InputError: as :func:`rgb`.
    """
    content = io.BytesIO()
    rgb(image, "the image").save(content, "PNG")
    return _HEAD + base64.b64encode(content.getvalue()).decode("ascii")


def enlarged(pixels: Any, height: int) -> Any:
    """Pixels (h, w) or (h, w, c) repeated a whole number of times, so that they are at least ``height`` high."""
    times = -(-height // pixels.shape[0])
    return pixels.repeat(times, 0).repeat(times, 1)


def stretched(image: Any, height: int = 48) -> str:
    """An image (c, h, w) of any scale, as a model is given it, as a picture for people: its least value black, its largest
    white; small ones enlarged to ``height`` pixels.
    """
    import numpy as np
    from PIL import Image

    values = np.asarray(image, dtype=np.float64).transpose(1, 2, 0)
    low, high = float(values.min()), float(values.max())
    pixels = (255 * (values - low) / ((high - low) or 1.0)).round().astype(np.uint8)
    pixels = enlarged(pixels, height)
    return as_picture(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def read_picture(path: Path) -> str:
    """The picture in the file ``path``, for a record.

    Raises:
        InputError: for a file that is missing or damaged, is no picture, or holds more than :data:`MOST_PIXELS` pixels or
            colours that are not red, green and blue.
    """
    return as_picture(open_picture(path))


def open_picture(path: Path) -> Any:
    """The picture in the file ``path`` as an RGB image of PIL. Raises InputError as :func:`read_picture`."""
    if not path.is_file():
        raise InputError(f"There is no image {path}; name a PNG or JPEG file.")
    return _opened(path.read_bytes(), path.name)


def picture_from(content: bytes, where: str) -> str:
    """The picture in the bytes of a file, for a record; ``where`` is what messages call it.

    Raises:
        InputError: as :func:`read_picture`.
    """
    return as_picture(_opened(content, where))


def picture_of(record: Record, where: str = "a record") -> Any:
    """The picture of ``record`` as an RGB image of PIL; ``None`` where it has none.

    Raises:
        InputError: for anything else under ``image`` than :func:`as_picture` gives, or a question that is missing beside it.
    """
    if IMAGE not in record:
        return None
    value = record[IMAGE]
    if not isinstance(value, str) or not value.startswith(_HEAD):
        raise InputError(
            f"Expected a picture as a data URI ({_HEAD}…) under 'image' of {where}; got {str(value)[:40]!r}. Read a file with "
            "data.pictures.read_picture."
        )
    if "question" not in record:
        raise InputError(
            f"Expected a question beside the picture of {where}; got a plain text, of which the context might cut the picture. "
            "Ask for the text, and write it under 'answer'."
        )
    try:
        content = base64.b64decode(value.removeprefix(_HEAD), validate=True)
    except binascii.Error:
        raise InputError(f"The picture of {where} is not encoded in base64. Read the file again.") from None
    return _opened(content, f"the picture of {where}")


def rgb(image: Any, where: str) -> Any:
    """``image`` with three colours; grey becomes three equal ones, and transparency is laid on white.

    Raises:
        InputError: for printing colours (CMYK) and others whose conversion needs a profile, or too many pixels.
    """
    from PIL import Image

    if image.width * image.height > MOST_PIXELS:
        raise InputError(
            f"Expected at most {MOST_PIXELS:,} pixels; {where} has {image.width} x {image.height}. Scale it down."
        )
    if image.mode in ("RGBA", "LA", "PA") or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode not in ("RGB", "L", "P", "1"):
        raise InputError(
            f"Expected a picture in RGB or grey; {where} has the mode {image.mode}, whose colours depend on a profile. Convert "
            "it to RGB."
        )
    return image.convert("RGB")


def _opened(content: bytes, where: str) -> Any:
    from PIL import Image

    def words(error: Exception) -> str:
        return f"{where} cannot be read as a picture: {str(error)[:200]}. Mend or drop it."

    with foreign(words, *PILLOW, Image.DecompressionBombError), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is refused below, before decoding
        image = Image.open(io.BytesIO(content))
        if image.width * image.height <= MOST_PIXELS:
            image.load()
    return rgb(image, where)
