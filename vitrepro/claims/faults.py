"""From pydantic's errors to lines that a person can act on."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from vitrepro import snapshot
from vitrepro.errors import ClaimFileError, did_you_mean
from vitrepro.spec import Bound, Comparison
from vitrepro.yamlfile import Document, Loc


@functools.cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def validate(model: Any, value: Any, document: Document, base: Loc) -> Any:
    """What a file says at a key path, as a model.

    Raises:
        ClaimFileError: it is none; a line for each fault, with its place.
    """
    try:
        return _adapter(model).validate_python(value)
    except ValidationError as error:
        lines: dict[str, None] = {}
        for loc, message in faults(error, value, model):
            shown = dotted((*base, *loc))
            lines[f"{document.where((*base, *loc))}: {shown + ': ' if shown else ''}{message}"] = None
        raise ClaimFileError(lines) from None
    except OverflowError as error:
        raise ClaimFileError([f"{document.where(base)}: a number is too large: {error}"]) from None


def faults(error: ValidationError, value: Any, annotation: Any) -> Iterator[tuple[Loc, str]]:
    """Key path in the file and a message, for each fault that pydantic found."""
    found = _merged(error.errors(include_url=False))
    wrong_kinds = {fault["loc"][:-1] for fault in found if fault["loc"] and fault["loc"][-1] == "kind"}
    for fault in found:
        if fault["type"] == "too_short" and fault["input"]:
            continue  # its items have faults of their own, already listed
        if fault["type"] == "union_tag_not_found" and _is_form(fault) and fault["loc"][:-3] in wrong_kinds:
            continue  # without a kind of claim nothing tells what is expected, and that is listed
        if _said_once(fault["loc"]) and not _holds(value, fault["loc"]):
            continue  # it stands beside the cells, and is listed there
        loc, model = _resolve(fault["loc"], value, annotation)
        yield loc, _message(fault, loc, model)


def _merged(faults: Iterable[Any]) -> list[Any]:
    """Faults with those of words that stand in none of several lists made one."""
    merged: list[Any] = []
    for fault in faults:
        if fault["type"] == "literal_error" and str(fault["loc"][-1]).startswith("literal["):
            fault = {**fault, "loc": fault["loc"][:-1]}
            if merged and (merged[-1]["type"], merged[-1]["loc"]) == (fault["type"], fault["loc"]):
                merged[-1]["ctx"] = {"expected": f"{merged[-1]['ctx']['expected']}, {fault['ctx']['expected']}"}
                continue
        merged.append(fault)
    return merged


def _said_once(loc: Loc) -> bool:
    """Whether a key path is that of what a reported cell takes over where it does not say it itself."""
    *_, section, cells, _, key = ("", "", "", "", *loc)
    return (section, cells) == ("reported", "cells") and key in ("decimals", "runs", "n")


def _holds(value: Any, loc: Loc) -> bool:
    for part in loc:
        if not (part in value if isinstance(value, dict) else isinstance(value, list)):
            return False
        value = value[part]
    return True


def _message(fault: Any, loc: Loc, model: Any) -> str:
    found = fault["input"]
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            forms = (Comparison, Bound) if model in (Comparison, Bound) else (model,) if model is not None else ()
            keys = [sorted(form.model_fields) for form in forms]
            hint = did_you_mean(str(loc[-1]), dict.fromkeys(k for form in keys for k in form))
            return f"unknown key{hint} (known: {'; or '.join(', '.join(form) for form in keys)})"
        case "missing":
            return "is missing"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"{_short(found)} is not one of {context['expected']}{_near(found, context['expected'])}"
        case "union_tag_invalid":
            tags = context["expected_tags"]
            key = context["discriminator"].strip("'")
            return f"{key} {_short(context['tag'])} is not one of {tags}{_near(context['tag'], tags)}"
        case "union_tag_not_found" if _is_form(fault):
            return (
                "nothing here tells what is expected; it has cells (of numbers), all (orders and bounds), equal and "
                "within, larger_gain and than, increasing, or checks (of printed cells)"
            )
        case "union_tag_not_found":
            return f"{context['discriminator']} is missing, which says what this is"
        case "too_short":
            return f"needs at least {context['min_length']}, found {context['actual_length']}"
        case "tuple_type":
            return f"a list is expected, found {kind_of(found)}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"a mapping is expected, found {kind_of(found)}"
        case "string_pattern_mismatch":
            return f"{_short(found)} is not a name of lower-case letters, digits, '.', '_' and '-'"
        case _:
            shown = _short(found) if not isinstance(found, dict | list) else kind_of(found)
            return f"{shown}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _is_form(fault: Any) -> bool:
    """Whether the tag at fault is that of `expect`, which no file writes."""
    return bool(fault["ctx"]["discriminator"] == "'kind'")


def dotted(loc: Loc) -> str:
    """A key path on one line, whatever the keys hold."""
    return ".".join(p if isinstance(p, str) and p.isprintable() and len(p) <= 120 else _short(p) for p in loc)


def _short(value: Any) -> str:
    """What was found, on one line."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _near(found: Any, expected: str) -> str:
    words = [w.strip(" '") for w in expected.replace(" or ", ",").split(",")]
    return did_you_mean(str(found), words)


def kind_of(value: Any) -> str:
    return {dict: "a mapping", list: "a list", type(None): "nothing", str: "text"}.get(type(value), _short(value))


def _resolve(loc: Loc, value: Any, annotation: Any) -> tuple[Loc, Any]:
    """The key path in the file, without the union tags that pydantic adds, and the model whose key it ends in."""
    kept: list[str | int] = []
    owner: Any = None
    for part in loc:
        members = list(snapshot.members_of(annotation))
        models = [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]
        if len(models) > 1:
            annotation = next((m for m in models if part in _tags(m)), Any)
            continue
        if not isinstance(value, dict | list | None):
            break  # a plain word or number, which the schema takes for more
        owner = models[0] if models else None
        kept.append(part)
        annotation = _step(members, part)
        try:
            value = value[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            value = None
    return tuple(kept), owner


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    """By which pydantic names a member of a union."""
    if model in (Bound, Comparison):  # told apart by their keys
        return (model.__name__,)
    return tuple(value for _, value in snapshot.tags_of(model))


def _step(members: Iterable[Any], part: str | int) -> Any:
    for member in members:
        fields = getattr(member, "model_fields", {})
        if part in fields:
            return fields[part].annotation
        arguments = get_args(member)
        if get_origin(member) is dict:
            return arguments[1]
        if get_origin(member) in (tuple, list) and arguments:
            return arguments[0]
    return Any
