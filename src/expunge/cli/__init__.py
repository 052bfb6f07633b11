"""The command line: parse, call one library function, print.

Exit codes: 0 done (or verified), 1 failed or tampered with, 2 input that cannot be used or a request that is refused,
3 held back for a person, 5 verified but for the signer, 6 verified but for a check that was skipped, 130 interrupted. Nothing
heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys

INTERRUPTED = 130  # what shells report for Ctrl-C


def main() -> None:
    """Run the command line."""
    from expunge.cli.app import app
    from expunge.core.errors import ExpungeError

    try:
        app()
    except ExpungeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("interrupted; run the same command again to go on", file=sys.stderr)
        raise
