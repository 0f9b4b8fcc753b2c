"""The methods that a study compares, each as settings of training: names of a column of Table 1, and controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smx.paper import MATCHED, PAPER_POOL, RECOMMENDED
from smx.training.config import SMARTMIXED, TrainConfig, spelled_out

PAPER_METHODS = (SMARTMIXED, *PAPER_POOL)
"""The paper's seven."""

RULES: Mapping[str, Mapping[str, Any]] = {
    rule: spelled_out({"activation": SMARTMIXED, "selection": rule}) for rule in (MATCHED, RECOMMENDED)
}
"""SmartMixed with another rule of choosing, see `TrainConfig.selection`."""

_OTHER_CHOICES: Mapping[str, Mapping[str, Any]] = {
    name: {"activation": SMARTMIXED, "phase2_choices": name} for name in ("shuffled", "random", "majority")
}

CONTROLS: Mapping[str, Mapping[str, Any]] = {
    **_OTHER_CHOICES,
    "relu_two_phases": {"activation": SMARTMIXED, "pool": ["relu"]},
    **{
        f"{rule}_{name}": {**settings, **control}
        for rule, settings in RULES.items()
        for name, control in _OTHER_CHOICES.items()
    },
}
"""Does it matter which neuron has which activation, do the shares matter, is any mixture as good, what does the
schedule of two phases cost? See `TrainConfig.phase2_choices`; a pool of one leaves nothing to choose. The first are
those of the paper's rule; those of another have its name before."""


def settings_of(method: str, own: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the settings of a method: one of the grid's `own`, a rule, a control, smartmixed, or an activation."""
    return {**CONTROLS, **RULES, **own}.get(method, {"activation": method})


def method_of(config: TrainConfig) -> str:
    """Return the name of the method that a run's settings are: a control, a rule, smartmixed, or an activation."""
    values = config.to_dict()
    for name, settings in sorted({**CONTROLS, **RULES}.items(), key=lambda item: -len(item[1])):
        if all(values[key] == value for key, value in settings.items()):
            return name
    return config.activation
