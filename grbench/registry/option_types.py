"""Types of plug-ins' options, with limits that are checked when a suite is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field, PlainSerializer, SerializationInfo

from grbench.registry.content_hash import file_hash, folder_hash
from grbench.types import MAX_SEED

Count = Annotated[int, Field(ge=1)]
"""A number of things, at least 1."""

Natural = Annotated[int, Field(ge=0)]
"""A number of things, 0 or more."""

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
"""A seed of random numbers, from 0 to MAX_SEED."""

Share = Annotated[float, Field(ge=0, lt=1)]
"""A share or a probability below 1."""

PathHash = Callable[[Path], str]
"""Hashes the content at a path to hex digits; raises OSError where it cannot be read."""

ContentSerializer = Callable[[Path, PathHash], str]
"""Serializes a path by its content: gets the path and the hash function of its kind."""


def _serialized_by_content(hash_function: PathHash) -> PlainSerializer:
    """A path is serialized as text; where the serialization's context is a ContentSerializer, by that function."""

    def serialize(path: Path, info: SerializationInfo[ContentSerializer | None]) -> str:
        return str(path) if info.context is None else info.context(path, hash_function)

    return PlainSerializer(serialize)


DataFile = Annotated[Path, _serialized_by_content(file_hash)]
"""A file that the plug-in reads: its content is part of the cell's identity, its path is not."""

DataFolder = Annotated[Path, _serialized_by_content(folder_hash)]
"""A folder whose files the plug-in reads: their relative paths and contents are part of the cell's identity, the
folder's own path is not."""


class OptionGroup:
    """Options that several factories share: a frozen dataclass that inherits from this class.

    A factory takes a group as a keyword-only argument. In a suite, the group's fields are options of the factory like
    any other, with the field's annotation and default, documented in the `Args:` section of the group's docstring.
    The argument's default overrides the fields' defaults for that factory, and the factory's own `Args:` section their
    documentation. A field may be a group itself. Names of fields must be unique within a factory.

        @dataclass(frozen=True, kw_only=True)
        class FusionOptions(OptionGroup):
            id_width: int = 32
            id_dropout: Share = 0.0

        class MyEncoder(nn.Module):
            def __init__(self, data, codes, *, fusion: FusionOptions = FusionOptions(id_dropout=0.1)) -> None: ...

    A suite writes `encoder: {name: my_encoder, id_width: 16}`, and the encoder gets FusionOptions(id_width=16,
    id_dropout=0.1).
    """
