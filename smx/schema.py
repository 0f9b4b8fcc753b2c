"""What a file may say, checked once, where it is read: types, ranges, lengths and keys.

The schema of a format are the annotations of the class that the program works with, be it a dataclass or a
`msgspec.Struct`. Behind `checked`, nobody has to look again.
"""

from __future__ import annotations

import dataclasses
import sys
import tomllib
import warnings
from collections.abc import Mapping
from textwrap import shorten
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from smx import limits
from smx.errors import InputError, one_line

T = TypeVar("T")

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Width = Annotated[int, Meta(ge=1, le=limits.NEURONS)]
Index = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Axis = Annotated[int, Meta(ge=-64, le=64)]
Number = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
"""A finite one."""
Positive = Annotated[float, Meta(gt=0, le=sys.float_info.max)]
Text = Annotated[str, Meta(max_length=limits.NAME)]
Shape = Annotated[tuple[Count, ...], Meta(max_length=64)]
Pool = Annotated[tuple[Text, ...], Meta(max_length=limits.POOL)]
Plain = str | int | float | bool | None


def checked(value: object, kind: type[T]) -> T:
    """Return plain values as an object of a class, each checked against its annotation.

    Keys that a dataclass does not know are refused; those of a `msgspec.Struct` only where it says so.

    Raises:
        InputError: a value has another type, is out of range, or is missing.
    """
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        unknown = value.keys() - {field.name for field in dataclasses.fields(kind)}
        if unknown:
            raise InputError(f"unknown key {shorten(min(map(str, unknown)), 60)!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a tensor in place of a dict looks like one, and warns of its use
            return msgspec.convert(value, kind)
    except (ValueError, TypeError, LookupError, RuntimeError) as error:
        raise InputError(_reason(error)) from error


def from_json(text: str | bytes, kind: Any) -> Any:
    """Return JSON as an object of a type, each value checked against its annotation; unknown keys are ignored.

    Raises:
        InputError: the text is no JSON or not UTF-8, is nested too deep, or a value is not what its annotation says.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(_reason(error)) from error


def without_header(content: dict[str, Any], form: str, version: int) -> dict[str, Any]:
    """Return what a file holds beside its `format` and `version`; one without a version is of this one.

    Raises:
        InputError: it has another format, or is of a version that this smx can't read.
    """
    rest = dict(content)
    if rest.pop("format", None) != form:
        raise InputError(f"its format is not {form}")
    if (found := rest.pop("version", version)) != version:
        raise InputError(f"it has format version {one_line(found)[:20]}, this smx reads {version}; upgrade smartmixed")
    return rest


def from_toml(text: bytes) -> dict[str, Any]:
    """Return the content of a TOML document.

    Raises:
        InputError: the text is no TOML or not UTF-8, is nested too deep, or has a whole number beyond 64 bits.
    """
    try:
        content = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(_reason(error)) from error
    waiting: list[Any] = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise InputError("a whole number has more than 64 bits")
        waiting.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    return content


def _reason(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else shorten(one_line(error).replace("`", ""), 300)
