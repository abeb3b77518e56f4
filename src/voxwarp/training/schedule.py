"""What a step of a training has: its phase, and the learning rate."""

import math

from .config import Config, Phase


def phase_at(config: Config, step: int) -> Phase:
    """The phase that a step belongs to."""
    for phase in config.phases:
        if step < phase.steps:
            return phase
        step -= phase.steps
    return config.phases[-1]


def learning_rate(config: Config, step: int) -> float:
    """A warm-up in each phase; one cosine over all of them, from the peak to ``final`` of it."""
    settings, start = config.optimiser, 0
    for phase in config.phases:
        if start <= step < start + min(settings.warm_up, phase.steps):
            break
        start += phase.steps
    else:
        start = -settings.warm_up  # long ago
    warmth = min(1.0, (step - start + 1) / max(1, settings.warm_up))
    cosine = (1 + math.cos(math.pi * step / config.steps)) / 2
    return settings.learning_rate * warmth * (settings.final + (1 - settings.final) * cosine)
