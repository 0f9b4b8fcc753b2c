"""A grid: every combination of settings that a TOML file names, each one a cell."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from smx import files
from smx.errors import InputError
from smx.paper import TABLE_1
from smx.schema import from_toml
from smx.study.methods import PAPER_METHODS, settings_of
from smx.training.config import FIELDS, TrainConfig, as_text, from_values, parse, spelled_out

METHOD = "method"
PAPER = "paper"
OF_THE_PAPER: Mapping[str, Sequence[Any]] = {"hidden": list(TABLE_1), METHOD: PAPER_METHODS}
"""What the word "paper" stands for, as the values of an axis."""
SHIPPED = {path.name.removesuffix(".toml"): path for path in (resources.files("smx.study") / "grids").iterdir()}
"""The grids that come with smx, by their names."""
MOST_CELLS = 100_000
NAME = re.compile(r"\w[\w .+-]{0,59}")
"""What a user may call a method: it stands in tables, figures and spreadsheets."""


@dataclass(frozen=True)
class Cell:
    """One training run of a study.

    Attributes:
        method: its name in tables.
        config: all its settings.
    """

    method: str
    config: TrainConfig

    @cached_property
    def id(self) -> str:
        """A hash of the whole configuration, 12 hexadecimal digits.

        Settings that have their defaults do not count, so that a setting that a later release adds changes no id.
        """
        values = {name: value for name, value in self.config.to_dict().items() if value != _default(name)}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting, and `method`, as one value each for a table: several values have commas between."""
        values = self.config.to_dict().items()
        return {METHOD: self.method, **{k: as_text(value) if isinstance(value, list) else value for k, value in values}}

    def value(self, name: str) -> Any:
        """Return the value of a setting, or of `method`."""
        return self.method if name == METHOD else getattr(self.config, name)

    def __str__(self) -> str:
        """Describe it for people: `smartmixed 512,256,128 seed 0`."""
        return f"{self.method} {as_text(self.config.hidden)} seed {self.config.seed}"


def _default(name: str) -> Any:
    default = FIELDS[name].default
    return list(default) if isinstance(default, tuple) else default


def cell_of(settings: Mapping[str, Any]) -> Cell:
    """Return the cell of a row's settings, as `Cell.settings` wrote them; what is missing has its default.

    Raises:
        InputError: a setting has a value of another type, or one that is out of range.
    """
    known = {name: settings[name] for name in FIELDS if name in settings}
    config = from_values(known)
    return Cell(str(settings.get(METHOD) or config.activation), config)


@dataclass(frozen=True)
class Grid:
    """What a study consists of.

    Attributes:
        base: settings of every cell.
        axes: for settings, or `method`, the values that are combined, each with each.
        methods: settings under a name of one's own.
    """

    base: Mapping[str, Any] = field(default_factory=dict)
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        """Return the cells, without repetitions, in the order in which the last axis changes fastest.

        Raises:
            InputError: a setting has a bad value, or is set by an axis or `with_values` and by a method; two methods
                are the same settings; or there are more than `MOST_CELLS`.
        """
        if (number := math.prod(map(len, self.axes.values()))) > MOST_CELLS:
            raise InputError(f"the grid has {number:,} cells, more than {MOST_CELLS:,}; make it smaller")
        found: dict[str, Cell] = {}
        for values in itertools.product(*self.axes.values()):
            chosen = dict(zip(self.axes, values, strict=True))
            method = chosen.pop(METHOD, None)
            named = settings_of(method, self.methods) if method is not None else {}
            if clash := chosen.keys() & named.keys():
                raise InputError(
                    f"{min(clash)} is set by [grid] or --set, and by the method {method}; it must be one of them"
                )
            config = from_values({**self.base, **named, **spelled_out(chosen)})
            # An activation has one name, however the grid spells it.
            plain = method is None or (method not in self.methods and named == {"activation": method})
            cell = Cell(config.activation if plain else method, config)
            if found.setdefault(cell.id, cell).method != cell.method:
                raise InputError(f"the methods {found[cell.id].method} and {cell.method} are the same settings")
        return list(found.values())

    def with_values(self, seeds: Sequence[int] | None = None, settings: Mapping[str, Any] | None = None) -> Grid:
        """Return the grid with other seeds, and with settings that win over its base and axes.

        Raises:
            InputError: a setting is unknown or of another type, or says what seeds or methods say, too.
        """
        settings = {name: value_of(name, value) for name, value in (settings or {}).items()}
        if "activation" in settings and METHOD in self.axes and METHOD not in settings:
            raise InputError("the grid's methods set the activation; choose methods with --set method=NAME or --only")
        if seeds is not None and "seed" in settings:
            raise InputError("seeds and a setting of the seed are both given; give one of them")
        if seeds is not None and not seeds:
            raise InputError("seeds must be one or more whole numbers, got none")
        chosen = {name: [value] for name, value in settings.items()}
        if seeds is not None:
            chosen["seed"] = list(seeds)
        return Grid(self.base, {**self.axes, **chosen}, self.methods)


def read_grid(grid: str | Path | Mapping[str, Any]) -> Grid:
    """Read a grid: a TOML file's path, the name of a grid that comes with smx, or the content of such a file.

    Raises:
        InputError: there is no such file, it is no TOML, or says something that no grid has.
    """
    if isinstance(grid, Mapping):
        return _parsed(grid, "the grid")
    path = Path(grid)
    shipped = SHIPPED.get(str(grid))
    source = shipped if shipped is not None and not path.is_file() else path if path.exists() else None
    if source is None:
        raise InputError(f"there is no grid {grid}; give a TOML file, or one of {', '.join(sorted(SHIPPED))}")
    try:
        content = from_toml(files.read(source))
    except OSError as error:
        raise InputError(f"{grid} can't be read ({error.strerror}); expected a TOML file with a grid") from error
    except InputError as error:
        raise InputError(f"{grid} is no TOML file ({error})") from error
    return _parsed(content, str(grid))


def _parsed(content: Mapping[str, Any], name: str) -> Grid:
    for table, values in content.items():
        if table not in ("base", "grid", "methods") or not isinstance(values, Mapping):
            raise InputError(f"{name} has {table!r}; a grid has the tables [base], [grid] and [methods.NAME]")
    methods = {}
    for method, settings in content.get("methods", {}).items():
        if not isinstance(settings, Mapping):
            raise InputError(f"{name}: methods.{method} must be a table of settings, got {settings!r}")
        if not NAME.fullmatch(method):
            raise InputError(
                f"{name}: a method's name must be at most 60 letters, digits, spaces and any of . _ + -, and begin with"
                f" a letter or digit, got {method[:60]!r}"
            )
        methods[method] = spelled_out(_fixed(settings, name))
    base = _fixed(content.get("base", {}), name)
    axes = {setting: _values(setting, values, name) for setting, values in content.get("grid", {}).items()}
    return Grid(base, axes, methods)


def _fixed(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Read settings that have one value each."""
    if METHOD in settings:
        raise InputError(f"{name}: {METHOD} must be a list in [grid], such as {METHOD} = ['relu']")
    return {setting: value_of(setting, value) for setting, value in settings.items()}


def value_of(setting: str, value: Any) -> Any:
    """Return a setting's value, or that of `method`, in its own type.

    Raises:
        InputError: the setting is unknown, or has a value of another type.
    """
    if setting == METHOD:
        if not isinstance(value, str) or not value:
            raise InputError(f"{METHOD} must be a name, got {value!r}")
        return value
    if setting not in FIELDS:
        raise InputError(f"unknown setting {setting!r}; known are {METHOD}, {', '.join(FIELDS)}")
    return parse(setting, value)


def _values(setting: str, values: Any, name: str) -> list[Any]:
    if isinstance(values, str) and values == PAPER and setting in OF_THE_PAPER:
        values = OF_THE_PAPER[setting]
    if isinstance(values, np.ndarray | range):
        values = list(values)
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise InputError(f"{name}: {setting} in [grid] must be a list of values, got {values!r}")
    return [value_of(setting, value) for value in values]
