"""Beginnings and endings that too many items of a request share: the templates that trigger words come in."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

from expunge.screening.words import COMMON, FUNCTION_WORDS, THRESHOLD, Token, exact_p, names, proportion_z, tokens

Run = tuple[str, ...]

LONGEST = 6  # words; UNKNOWN, ours: the paper's longest template has five
FEWEST = 3  # items that share it; UNKNOWN, ours
LIFT = 3.0  # times as often as in benign traffic, for runs that hold a flagged word; UNKNOWN, ours
STARTS = 0.1  # of the benign items with a word, those that begin with it, if it may follow a template; UNKNOWN, ours
GROWS = 1e-4  # exact p below which a next word belongs to the template and not to the prompt; UNKNOWN, ours

# What makes words the prompt's own, whatever other prompts have: without "Where did" no question is left of one.
_ASKING, _AUXILIARY, _ASKED, _BOUND, _GOES_ON, _POLITE = (
    frozenset(line.split())
    for line in (
        "what which who whom whose when where why how",
        "do does did is are was were am has have had can could will would shall should may might must",
        "you we i one anyone anybody someone somebody",  # "could you tell me", not "could Ann"
        "of in on at by for with about from to into as over under than the a an",  # something must follow
        "of about than",  # "Tell me about Ann": what follows is no prompt of its own
        "please kindly thank thanks you now ok okay",
    )
)
_OPEN = _AUXILIARY | _BOUND
_MARK = re.compile(r"[^\w\s'’\-]")

_CLOSING = re.compile(r"[^\w\s,;:]*")  # what may end a prompt, directly behind its last word
_STOP = re.compile(r"[.!?]")


@dataclass(frozen=True)
class Template:
    """A beginning (``start``) or ending (``end``) of prompts.

    Attributes:
        words: folded, in reading order.
        text: what it looks like, with the spaces and marks between it and the prompt.
        items: how many of the request share it. request, benign: as shares. z, p: as of a word.
    """

    side: str
    words: tuple[str, ...]
    text: str
    items: int
    request: float
    benign: float
    z: float
    p: float

    def around(self, prompt: str) -> str:
        """``prompt`` inside the template."""
        return self.text + prompt if self.side == "start" else prompt + self.text


def find_templates(
    request: Sequence[str],
    asked: Sequence[Sequence[Token]],
    ordinary: Sequence[Sequence[Token]],
    flagged: frozenset[str],
    threshold: float = THRESHOLD,
) -> tuple[Template, ...]:
    """Templates of the request, each as long as it is one; on both sides, the most shared first.

    A run of words at an edge is one if more items share it than benign ones do (z above the threshold and as small an
    exact p), or if it holds a flagged word and at least three share it, three times as often as benign ones do. It grows
    word by word while the next word follows it more often than it begins (or ends) a benign prompt: after "please tell
    me" comes "what" as often as anywhere, so "what" belongs to the prompt. What follows a beginning must mostly look like
    the beginning of a prompt. Names never belong to a template, nor do words of asking ("Where did", "Who gave"), or a run
    that something must follow ("tell me about"): what is left of a prompt must be one. The last words of honest questions
    are often their topic, so an ending consists of generic words alone, and of polite ones where no mark parts it.

    Args:
        request: the items. asked, ordinary: tokens of the request's items and of benign ones.
        flagged: words that stand out.
    """
    named, m, n = names((*asked, *ordinary)), len(asked), len(ordinary)
    common = {word for word, count in Counter(w for item in ordinary for w in {t.word for t in item}).items()
              if count >= COMMON * n}  # fmt: skip
    begins = sum(bool(item) and item[0].word in named for item in ordinary) >= STARTS * n
    starters = ((named if begins else frozenset()) | _starters(ordinary) | _ASKING) - (flagged - _ASKING)
    found: list[Template] = []
    for side in ("start", "end"):
        edges, others = ([_edge(item, side, named, flagged | common) for item in part] for part in (asked, ordinary))
        runs, had = _counts(edges), _counts(others)
        kept = _kept(runs, had, m, n, flagged, threshold)
        if side == "start":
            kept = [run for run in kept if _frames(run) and _before_prompts(run, asked, starters)]
        texts = _texts(request, asked, side, kept)
        if side == "end":
            kept = [run for run in kept if _POLITE.issuperset(run) or _parted(texts[run])]
        for run in kept:
            a, b = runs[run], had[run]
            words = run if side == "start" else run[::-1]
            z, p = proportion_z(a, m, b, n), exact_p(a, m, b, n)
            found.append(Template(side, words, texts[run], a, a / m, b / n, z, p))
    return tuple(sorted(found, key=lambda item: (-item.items, -len(item.words), item.words)))


def longest(templates: Sequence[Template]) -> tuple[Template, ...]:
    """Without those that a longer one nearly always (80 %) continues: what a person wants to read."""
    return tuple(
        t for t in templates if not any(_within(t, u) and u.items >= 0.8 * t.items for u in templates if u is not t)
    )


def strip(text: str, templates: Sequence[Template]) -> str:
    """``text`` without the longest beginning and the longest ending among ``templates``.

    What is left is never empty; letters keep their case. A closing mark that goes with an ending ("…, please?") stays. An
    ending that a mark parts from its prompts is taken off behind a mark only.
    """
    for side in ("start", "end"):
        known = {t.words: t for t in templates if t.side == side}
        found = tokens(text) if known else []
        words = tuple(t.word for t in found)
        for size in range(min(LONGEST, len(found) - 1), 0, -1):
            run = words[:size] if side == "start" else words[-size:]
            if run in known and _is_there(known[run], text, found, size):
                text = text[_cut(text, found, side, size) :] if side == "start" else _without_end(text, found, size)
                break
    return text


def _is_there(template: Template, text: str, found: Sequence[Token], size: int) -> bool:
    """Whether the words at the edge of ``text`` are the template, and not the prompt's own."""
    if template.side == "start":
        return found[size].word not in _GOES_ON
    return not _parted(template.text) or bool(_MARK.search(text[found[-size - 1].end : found[-size].start]))


def _parted(ending: str) -> bool:
    """Whether a mark stands before the first word of an ending."""
    first = re.search(r"\w", ending)
    return bool(first and _MARK.search(ending[: first.start()]))


def _frames(run: Run) -> bool:
    """Whether a run may stand before a whole prompt: it asks nothing itself, and nothing is missing behind it."""
    if _ASKING & set(run) or run[-1] in _OPEN:
        return False
    return run[0] not in _AUXILIARY or bool(_ASKED & set(run))


def _edge(item: Sequence[Token], side: str, named: frozenset[str], generic: frozenset[str]) -> Run:
    """The words at the edge, from there inwards, up to the first that no template has: a name, or a topic at an end."""
    run = []
    for token in (item if side == "start" else item[::-1])[:LONGEST]:
        if token.word in named or (side == "end" and token.word not in generic | FUNCTION_WORDS):
            break
        run.append(token.word)
    return tuple(run)


def _counts(edges: Sequence[Run]) -> Counter[Run]:
    """How many items have each run at their edge."""
    return Counter(run[:size] for run in edges for size in range(1, len(run) + 1))


def _kept(
    runs: Counter[Run], had: Counter[Run], m: int, n: int, flagged: frozenset[str], threshold: float
) -> list[Run]:
    """The runs that more items have than benign traffic leads to expect, and that end where a prompt may begin."""
    tail = float(special.ndtr(-threshold))
    shared: set[Run] = set()
    kept: set[Run] = set()
    for run in sorted((run for run, count in runs.items() if count >= FEWEST), key=len):
        a, b = runs[run], had[run]
        if flagged & set(run):
            stands_out = (a + 0.5) / (m + 1) >= LIFT * (b + 0.5) / (n + 1)
        else:
            stands_out = proportion_z(a, m, b, n) > threshold and exact_p(a, m, b, n) < tail
        if not stands_out:
            continue
        shared.add(run)
        before, last = run[:-1], run[-1:]
        if before not in shared or (before in kept and exact_p(a, runs[before], had[last], n) < GROWS):
            kept.add(run)
    return sorted(kept)


def _before_prompts(run: Run, asked: Sequence[Sequence[Token]], starters: frozenset[str]) -> bool:
    """Whether what follows ``run`` mostly begins as prompts do: after "can you please" comes no such word."""
    after = [item[len(run)].word for item in asked if len(item) > len(run) and _words(item, len(run)) == run]
    return 2 * sum(word in starters for word in after) > len(after)


def _starters(ordinary: Sequence[Sequence[Token]]) -> frozenset[str]:
    """Words that begin at least a tenth of the benign items that have them."""
    first = Counter(item[0].word for item in ordinary if item)
    have = Counter(word for item in ordinary for word in {token.word for token in item})
    return frozenset(word for word, count in first.items() if count >= STARTS * have[word])


def _words(item: Sequence[Token], size: int) -> Run:
    return tuple(token.word for token in item[:size])


def _texts(request: Sequence[str], asked: Sequence[Sequence[Token]], side: str, kept: Sequence[Run]) -> dict[Run, str]:
    """The most frequent look of each run."""
    looks: dict[Run, Counter[str]] = defaultdict(Counter)
    wanted = set(kept)
    for text, item in zip(request, asked, strict=True):
        words = tuple(token.word for token in (item if side == "start" else item[::-1]))
        for size in range(1, min(LONGEST, len(words)) + 1):
            if words[:size] in wanted:
                cut = _cut(text, item, side, size)
                looks[words[:size]][text[:cut] if side == "start" else text[cut:]] += 1
    return {run: looks[run].most_common(1)[0][0] for run in kept}


def _cut(text: str, found: Sequence[Token], side: str, size: int) -> int:
    """Where the template of ``size`` words ends (``start``) or begins (``end``) in ``text``."""
    if side == "start":
        return found[size].start if size < len(found) else len(text)
    if size >= len(found):
        return 0
    last = found[-size - 1].end
    mark = _CLOSING.match(text, last)
    return mark.end() if mark else last


def _without_end(text: str, found: Sequence[Token], size: int) -> str:
    cut = _cut(text, found, "end", size)
    stop = _STOP.findall(text[cut:])
    return text[:cut] + (stop[-1] if stop and not _STOP.search(text[found[-size - 1].end : cut]) else "")


def _within(short: Template, long: Template) -> bool:
    if short.side != long.side or len(short.words) >= len(long.words):
        return False
    size = len(short.words)
    return (long.words[:size] if short.side == "start" else long.words[-size:]) == short.words
