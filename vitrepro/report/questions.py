"""The eight questions of a reproducibility checklist, answered for one claim from what its files say.

Source: the introduction of the teaching notebooks of mohammed183/re_vit, which puts them to a whole paper.
"""

from __future__ import annotations

from collections.abc import Sequence

from vitrepro.report.text import outcome
from vitrepro.spec import Claim, Code, Paper, Reported
from vitrepro.store import VerdictEntry

QUESTIONS = (
    "Is there code for training and for inference?",
    "By the authors or by others; are there several to compare?",
    "Which framework, and can it still be had?",
    "Are the models it is compared with available?",
    "Are all hyper-parameters given?",
    "What is random, and over how many runs?",
    "Is the data accessible, and is it changed first?",
    "Have the reported results been obtained?",
)


def answers(claim: Claim, paper: Paper | None, verdicts: Sequence[VerdictEntry]) -> list[tuple[str, str]]:
    """Question and answer, in the order of QUESTIONS.

    Args:
        paper: what is known of the claim's source; without it, most answers say that nothing is recorded.
        verdicts: those stored for this claim.
    """
    told = (
        _code(claim, paper),
        _whose(claim, paper),
        _framework(claim, paper),
        _baselines(claim, paper),
        _settings(claim, paper),
        _randomness(claim, paper),
        _data(claim, paper),
        _obtained(claim, verdicts),
    )
    return [(question, _sentence(answer)) for question, answer in zip(QUESTIONS, told, strict=True)]


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _part(text: str) -> str:
    """What a file says, as a part of a longer sentence."""
    return text.removesuffix(".")


def _code(claim: Claim, paper: Paper | None) -> str:
    work = [w for w in claim.needs.work if w != "arithmetic"]
    if claim.needs.work and not work:
        return "None is needed: the statement is checked on printed numbers."
    if paper is None or not work:
        return _unknown(claim)
    if not paper.code:
        return "No public code is known."
    parts = []
    for kind in work:
        by_authors = [c.repository for c in paper.code if kind in c.covers and c.by == "authors"]
        by_others = [c.repository for c in paper.code if kind in c.covers and c.by == "others"]
        whose = "by the authors" if by_authors else "by others only" if by_others else ""
        parts.append(f"{kind}: {'yes, ' + whose if whose else 'no'}")
    return "; ".join(parts)


def _whose(claim: Claim, paper: Paper | None) -> str:
    if paper is None or not claim.needs.work:
        return _unknown(claim)
    if set(claim.needs.work) == {"arithmetic"}:
        return "None is needed."
    used = _relevant(claim, paper)
    if not used:
        return "No public implementation of this part is known."
    listed = ", ".join(f"{c.repository} ({c.by})" for c in used)
    return f"{len(used)}: {listed}"


def _framework(claim: Claim, paper: Paper | None) -> str:
    if paper is None:
        return _unknown(claim)
    used = dict.fromkeys(f"{c.framework} ({c.repository})" for c in _relevant(claim, paper))
    told = [_sentence(paper.framework)] if paper.framework else []
    return " ".join([*told, *(["In use: " + ", ".join(used)] if used else [])]) or _unknown(claim)


def _baselines(claim: Claim, paper: Paper | None) -> str:
    if not claim.needs.baselines:
        return "Not recorded."
    if paper is None:
        return _unknown(claim)
    parts = []
    for name in claim.needs.baselines:
        known = paper.weights.get(name)
        names = ", ".join(known.names) or "never released" if known else "not recorded"
        parts.append(f"{known.title if known else name}: {names}")
    return "; ".join(parts)


def _settings(claim: Claim, paper: Paper | None) -> str:
    needs = claim.needs
    if not needs.work:
        return _unknown(claim)
    if set(needs.work) <= {"arithmetic", "model"}:
        given = f"Nothing is trained for it ({needs.recipe})." if needs.recipe else "Nothing is trained for it."
    else:
        given = f"Given in {_part(needs.recipe)}." if needs.recipe else "Not recorded where they stand."
    guessed = f" Not said: {'; '.join(map(_part, needs.unstated))}." if needs.unstated else ""
    known = paper.differences if paper else {}
    apart = [f"{d}: {_part(known[d].text)} / {_part(known[d].code)}" for d in needs.differences if d in known]
    told = "The released code differs or fills in" if paper and paper.code else "Beside the text"
    code = f" {told}: {'; '.join(apart)}." if apart else ""
    return given + guessed + code


def _randomness(claim: Claim, paper: Paper | None) -> str:
    if set(claim.needs.work) and set(claim.needs.work) <= {"arithmetic", "model"}:
        return "Nothing: it is counted or computed."
    runs = sorted({c.runs for c in claim.reported.cells.values() if c.runs}) if claim.reported else []
    spread = _spread(claim.reported)
    behind = (
        f"The reported values stand for {', '.join(map(str, runs))} {'run' if runs == [1] else 'runs'}{spread}."
        if runs
        else ""
    )
    if not runs and claim.reported:
        behind = f"The source does not say how many runs stand behind its values{spread}."
    told = _sentence(paper.randomness) if paper and paper.randomness else ""
    return " ".join(part for part in (told, behind) if part) or _unknown(claim)


def _spread(reported: Reported | None) -> str:
    with_sd = sum(c.sd is not None for c in reported.cells.values()) if reported else 0
    return f", {with_sd} with a deviation" if with_sd else ""


def _data(claim: Claim, paper: Paper | None) -> str:
    if not claim.needs.data:
        counted = claim.needs.work and set(claim.needs.work) <= {"arithmetic", "model"}
        return "It needs no data." if counted else "Not recorded." if claim.needs.work else _unknown(claim)
    if paper is None:
        return _unknown(claim)
    parts = []
    for name in claim.needs.data:
        known = paper.data.get(name)
        note = f" ({_part(known.note)})" if known and known.note else ""
        parts.append(f"{known.title}: {known.access}{note}" if known else name)
    return "; ".join(parts)


def _obtained(claim: Claim, verdicts: Sequence[VerdictEntry]) -> str:
    parts = [f"{len(e.cells)} value{'s' if len(e.cells) > 1 else ''} of others ({e.by})" for e in claim.elsewhere]
    parts += [f"here at scale {v.scale}: {outcome(v.outcome, claim.ours)}" for v in verdicts]
    return "; ".join(parts) or "No other value is recorded, and nothing was run here yet."


def _relevant(claim: Claim, paper: Paper) -> list[Code]:
    work = set(claim.needs.work) - {"arithmetic"}
    return [c for c in paper.code if work & set(c.covers)]


def _unknown(claim: Claim) -> str:
    return f"Nothing is recorded of it for {claim.source.paper}."
