"""What readers of other projects raise for damaged or odd files; found by changing good files at random."""

from __future__ import annotations

import pickle
import struct
import tokenize
import zipfile
import zlib

# of NumPy and zipfile: headers that do not parse, members that are packed in a way nobody knows or under a password
NUMPY = (
    ValueError, OSError, EOFError, KeyError, OverflowError, RuntimeError, SyntaxError, tokenize.TokenError, struct.error,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# of pickle and pickletools, and of what stands in for types that a pickle names
PICKLE = (
    pickle.UnpicklingError, ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError, RecursionError,
    struct.error,
)  # fmt: skip
# of torch.load with weights_only
TORCH = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, OSError)
# of Pillow's decoders, of which each has its own
PILLOW = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, NotImplementedError, struct.error,
    zlib.error,
)  # fmt: skip
