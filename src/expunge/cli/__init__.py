"""The command line: parse, call one library function, print.

Exit codes: 0 done (or verified), 1 failed or tampered with, 2 input that cannot be used or a request that is refused,
3 held back for a person, 4 delivered and not accepted, 5 verified but for the signer, 6 verified but for a check that was
skipped, 70 an unexpected error with its traceback, 75 interrupted or the machine failed: run it again. Nothing heavy is
imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import errno
import sys
from contextlib import suppress

INTERRUPTED = 130  # what typer reports for Ctrl-C
NOT_ACCEPTED = 4  # a run did its work, and its result is not what was asked for
AGAIN, UNEXPECTED = 75, 70  # EX_TEMPFAIL and EX_SOFTWARE of sysexits.h


def main() -> None:
    """Run the command line."""
    from expunge.cli.app import app
    from expunge.core.errors import ExpungeError

    try:
        app()
    except ExpungeError as error:
        _say(f"error: {error}")
        raise SystemExit(error.exit_code) from None
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        _say("interrupted; run the same command again to go on")
        raise SystemExit(AGAIN) from None
    except Exception as error:
        reason = _of_the_machine(error)
        if reason is None:
            import traceback

            traceback.print_exc()
            raise SystemExit(UNEXPECTED) from None
        _say(f"error: {reason}")
        too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
        raise SystemExit(2 if too_long else AGAIN) from None


def _say(sentence: str) -> None:
    """On standard error, where that can be written: on a full disk the exit code alone has to say it."""
    with suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


def _of_the_machine(error: Exception) -> str | None:
    """What failed outside of this program, in a sentence; ``None`` for an error of its own."""
    from expunge.core.errors import of_the_machine

    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"The name {error.filename!s:.60}… is too long for this file system. Shorten it."
    if not of_the_machine(error):
        return None
    if isinstance(error, OSError):
        where = f" at {error.filename}" if error.filename else ""
        return (
            f"The machine failed{where}: {error.strerror}. Nothing is lost: mend that and run the same command again."
        )
    return "The machine failed: memory ran out. Nothing is lost: make room and run the same command again."
