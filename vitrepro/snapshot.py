"""What the claim files held when they were last read and found sound, so that most commands need not read them again.

Plain JSON in the user's cache. It counts only while every claim file, every module of this package and the libraries
that give them their meaning are byte for byte what they were; anything else, damage included, and the files are read
anew. Objects are rebuilt without validation, which those who write must have compared with the validated ones.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import VERSION, BaseModel

from vitrepro import __version__

Build = Callable[[Any], Any]


def key_of(files: Mapping[str, bytes]) -> str:
    """SHA-256 of all that decides what these files come to.

    Args:
        files: by the name under which they are read.
    """
    digest = hashlib.sha256(f"{__version__} {VERSION} {sys.version}".encode())
    root = Path(__file__).parent
    code = [p for folder in (root, root / "claims") for p in folder.iterdir() if p.suffix in (".py", ".pyc")]
    modules = {p.relative_to(root).as_posix(): p.read_bytes() for p in code}
    for name, content in sorted({**modules, **files}.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def place(directory: Path) -> Path | None:
    """Where the snapshot of a directory is kept, or None where there is no folder for caches."""
    from vitrepro.store import Places

    folder = Places.of(Path(), None).cache_dir
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    return folder / "claims" / f"{name}.json" if folder.is_absolute() else None


def read(path: Path, key: str) -> Any:
    """What was kept under this key, or None: other files, damage, nothing there."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        if head.decode() != f"{key} {hashlib.sha256(body).hexdigest()}":
            return None
        return json.loads(body)
    except (OSError, ValueError):
        return None


def write(path: Path, key: str, text: str) -> None:
    """Keep JSON for the next command; a cache that cannot be written is no fault."""
    from vitrepro.store import write_atomic

    body = text.encode()
    head = f"{key} {hashlib.sha256(body).hexdigest()}\n".encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, head + body)
    except OSError:
        return


def plain(item: BaseModel) -> dict[str, Any]:
    """What a file said of an object, without what it left out."""
    return item.model_dump(mode="json", exclude_unset=True)


def build(model: Any, value: Any) -> Any:
    """The object that `plain` was made of, without validation.

    Args:
        model: a model, or a union of models.
    """
    make = _builder(model)
    assert make is not None
    return make(value)


@functools.cache
def _maker(model: type[BaseModel]) -> Build:
    left_out = {name: field.default for name, field in model.model_fields.items()}  # required ones are never left out
    factories = [(name, f.default_factory) for name, f in model.model_fields.items() if f.default_factory]
    inner = {name: _builder(field.annotation) for name, field in model.model_fields.items()}

    def make(value: Any) -> Any:
        content = left_out.copy()
        for name, factory in factories:
            content[name] = factory()  # type: ignore[call-arg]
        for name, item in value.items():
            build_item = inner[name]
            content[name] = build_item(item) if build_item else item
        made = model.__new__(model)
        _set(made, "__dict__", content)
        _set(made, "__pydantic_fields_set__", set(value))
        _set(made, "__pydantic_extra__", None)
        _set(made, "__pydantic_private__", None)
        return made

    return make


_set = object.__setattr__  # past what freezes models


def _builder(annotation: Any) -> Build | None:
    """How JSON becomes a value of this type; None where it is one already."""
    members = list(members_of(annotation))
    optional = type(None) in members
    wanted = [m for m in members if m is not type(None)]
    make = _container(wanted[0]) if len(wanted) == 1 else _union(wanted)
    if make is None or not optional:
        return make
    return lambda value: None if value is None else make(value)


def _container(member: Any) -> Build | None:
    if isinstance(member, type) and issubclass(member, BaseModel):
        return _maker(member)
    arguments = get_args(member)
    if get_origin(member) is tuple:
        item = _builder(arguments[0])
        return functools.partial(_tuple, item) if item else tuple
    if get_origin(member) is dict:
        item = _builder(arguments[1])
        return functools.partial(_dict, item) if item else None
    return None


def _tuple(item: Build, value: Any) -> Any:
    return tuple(map(item, value))


def _dict(item: Build, value: Any) -> Any:
    return {name: item(v) for name, v in value.items()}


def _union(members: list[Any]) -> Build | None:
    """Models are told apart by their tag, or by the keys that they have."""
    models = [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]
    if not models:
        return None
    by_tag = {(key, tag): _maker(m) for m in models for key, tag in tags_of(m)}
    tag_keys = dict.fromkeys(key for key, _ in by_tag)

    def make(value: Any) -> Any:
        for key in tag_keys:
            if (key, value.get(key)) in by_tag:
                return by_tag[key, value[key]](value)
        return next(_maker(m)(value) for m in models if value.keys() <= m.model_fields.keys())

    return make


def members_of(annotation: Any) -> Iterator[Any]:
    """The types a value may have, with Annotated, aliases and unions opened."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from members_of(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from members_of(member)
    else:
        yield annotation


def tags_of(model: Any) -> Iterator[tuple[str, Any]]:
    """Keys and values by which a member of a tagged union is known."""
    for key in ("family", "type", "kind"):
        field = getattr(model, "model_fields", {}).get(key)
        if field is not None and get_origin(field.annotation) is Literal:
            yield from ((key, value) for value in get_args(field.annotation))
