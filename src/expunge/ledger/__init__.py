"""The append-only record of requests and releases: hash-chained, with a Merkle tree over it, in one SQLite file."""

from expunge.ledger.entries import Entry as Entry
from expunge.ledger.entries import canonical_payload as canonical_payload
from expunge.ledger.excerpt import verify_excerpt as verify_excerpt
from expunge.ledger.file import Ledger as Ledger
