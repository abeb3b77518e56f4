"""The phase and the learning rate of a training step."""

import math

from .config import Config, Phase


def phase_at(config: Config, step: int) -> Phase:
    """The phase of a step, counted from 0."""
    for phase in config.phases:
        if step < phase.steps:
            return phase
        step -= phase.steps
    return config.phases[-1]


def learning_rate(config: Config, step: int) -> float:
    """The learning rate of a step: a warm-up in each phase times one cosine over all steps.

    The cosine falls from ``learning_rate`` to ``final`` times that.
    """
    settings, start = config.optimiser, 0
    for phase in config.phases:
        if start <= step < start + min(settings.warm_up, phase.steps):
            break
        start += phase.steps
    else:
        start = -settings.warm_up  # the step is in no warm-up
    warmth = min(1.0, (step - start + 1) / max(1, settings.warm_up))
    cosine = (1 + math.cos(math.pi * step / config.steps)) / 2
    return settings.learning_rate * warmth * (settings.final + (1 - settings.final) * cosine)
