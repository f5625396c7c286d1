"""Types of options that many plug-ins have; each says its limits, which are checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field, PlainSerializer, SerializationInfo

from grbench.registry.content_hash import file_hash, folder_hash

Count = Annotated[int, Field(ge=1)]
"""How many of something that must be there."""

Natural = Annotated[int, Field(ge=0)]
"""How many of something that may be missing."""

Share = Annotated[float, Field(ge=0, lt=1)]
"""A part of a whole, or a chance."""

Hash = Callable[[Path], str]
"""Hex digits that name what lies at a path; raises OSError where it cannot be read."""

ContentOf = Callable[[Path, Hash], str]
"""What stands for the file or folder at a path where its content counts and not its place."""


def _by_content(hashed: Hash) -> PlainSerializer:
    """A path is written as it is, but where the context is a ContentOf, as that function says."""

    def written(path: Path, info: SerializationInfo[ContentOf | None]) -> str:
        return str(path) if info.context is None else info.context(path, hashed)

    return PlainSerializer(written)


DataFile = Annotated[Path, _by_content(file_hash)]
"""A file that the plug-in reads: its content is part of the cell's identity, its path is not."""

DataFolder = Annotated[Path, _by_content(folder_hash)]
"""A folder whose files the plug-in reads: their names and contents are part of the cell's identity."""


class OptionGroup:
    """Options that several factories share, or hand on together: a frozen dataclass that inherits from this class.

    A factory takes a group as a keyword-only argument. In a suite its fields are options of the factory like any other:
    flat, each under its own name, with the field's annotation and default, documented in the `Args:` section of the
    group's docstring. A default of the argument sets the fields' defaults for that factory, its own `Args:` section
    their texts. A field may be a group itself. No two groups of a factory may have a field of the same name.

        @dataclass(frozen=True, kw_only=True)
        class FusionOptions(OptionGroup):
            id_width: int = 32
            id_dropout: Share = 0.0

        class MyEncoder(nn.Module):
            def __init__(self, data, codes, *, fusion: FusionOptions = FusionOptions(id_dropout=0.1)) -> None: ...

    A suite writes `encoder: {name: my_encoder, id_width: 16}`, and the encoder gets FusionOptions(id_width=16,
    id_dropout=0.1).
    """
