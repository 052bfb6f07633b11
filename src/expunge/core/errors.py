"""What can go wrong, in words: every message says what was expected, what came and what to do."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What a machine lacks for a while, and a user can mend: space, quota, memory, open files, a disk that answers, rights. Such an
# OSError passes through as it is, and the same command goes on later.
MACHINE = (
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.ESTALE,
    errno.ETIMEDOUT, errno.EACCES, errno.EPERM,
)  # fmt: skip


class ExpungeError(Exception):
    """Base of every error that expunge raises on purpose; the command line exits with ``exit_code``."""

    exit_code = 2


class InputError(ExpungeError):
    """A value at the border (YAML, command line, public function) cannot be used."""


class RefusedError(ExpungeError):
    """A plan may not run: the method cannot serve this request on this model; the message names what would work."""


class HeldBackError(RefusedError):
    """A result waits for a person: its certificate is void, so nothing bounds what it tells."""

    exit_code = 3


class FailedError(ExpungeError):
    """A run ended without doing what it declared, for example a method that left every weight unchanged."""

    exit_code = 1


class TamperedError(ExpungeError):
    """A record does not verify: a hash, a signature or a recomputed value differs from what is written."""


class ExtraMissingError(ExpungeError):
    """An optional dependency is not installed.

    Args:
        extra: the extra of expunge that brings it, for example ``llm``.
        package: the package that is missing.
    """

    def __init__(self, extra: str, package: str):
        super().__init__(f"{package} is not installed; it comes with: pip install 'expunge[{extra}]'")


def of_the_machine(error: BaseException) -> bool:
    """Whether something outside of this program failed: a file operation (:data:`MACHINE`), or memory ran out."""
    if isinstance(error, OSError):
        return error.errno in MACHINE
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError | ImportError) and _no_memory(error))


def _no_memory(error: Exception) -> bool:
    """Whether PyTorch could not allocate memory (an error of its own, or a RuntimeError that says so) or a library not load."""
    said = ("can't allocate memory", "failed to map segment from shared object")
    return type(error).__name__ == "OutOfMemoryError" or any(words in str(error) for words in said)


@contextmanager
def foreign(words: Callable[[Exception], str], *raised: type[Exception]) -> Iterator[None]:
    """Around calls of a reader that is not ours: what it raises for content that it cannot read becomes an InputError.

    Args:
        words: of the error, the message.
        raised: what that reader raises for damaged or odd content. Anything else is an error of ours and passes through, and
            so does what the machine failed at.
    """
    try:
        yield
    except raised as error:
        if isinstance(error, ExpungeError) or of_the_machine(error):
            raise
        raise InputError(words(error)) from None
