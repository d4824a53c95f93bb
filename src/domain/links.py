"""What ties live models to one another: the names that they answer to, and the models that stand in for them.

Only what is newly named is judged, so that nothing but a change of names or fallbacks is ever refused for
their sake: a name that a model has already is its own, and only a new edge can close a loop.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from domain.configuration import ModelConfig
from domain.errors import Problem
from domain.values import ModelId

MOST_TOLD: Final = 10
"""Models of a loop that a refusal names."""


class Links(Struct, frozen=True):
    """The aliases and fallbacks of one model."""

    aliases: tuple[str, ...] = ()
    fallbacks: tuple[ModelId, ...] = ()


class Others(Struct, frozen=True):
    """The other live models, as far as a decision on one model has to know them."""

    links: Mapping[ModelId, Links]
    """Of all that have any."""
    live: frozenset[ModelId]
    """Those that the decision names."""


def links_of(config: ModelConfig) -> Links:
    """A configuration's links."""
    return Links(config.aliases or (), config.fallbacks or ())


def check_links(
    model_id: ModelId, new: Links, old: Links | None, others: Others, *, from_the_past: bool
) -> Iterator[Problem]:
    """Tell what is wrong with a model's links.

    Args:
        model_id: the model.
        new: what it is to have.
        old: what it has; None while it is not live.
        others: the other live models.
        from_the_past: fallbacks that are gone may come back with what named them; calls pass over them.
    """
    yield from _check_id(model_id, old, others)
    yield from _check_aliases(model_id, new, old or Links(), others)
    yield from _check_fallbacks(model_id, new, old or Links(), others, from_the_past=from_the_past)


def _check_id(model_id: ModelId, old: Links | None, others: Others) -> Iterator[Problem]:
    holder = _holder(model_id, others) if old is None else None
    if holder is not None:
        yield Problem("/model_id", "name_taken", f"{model_id!r} is an alias of model {holder!r}")


def _check_aliases(model_id: ModelId, new: Links, old: Links, others: Others) -> Iterator[Problem]:
    for place, alias in enumerate(new.aliases):
        if alias == model_id:
            yield Problem(f"/aliases/{place}", "name_taken", f"{alias!r} is the model's own id")
        elif alias in old.aliases:
            continue
        elif alias in others.live:
            yield Problem(f"/aliases/{place}", "name_taken", f"{alias!r} is the id of another model")
        elif holder := _holder(alias, others):
            yield Problem(f"/aliases/{place}", "name_taken", f"{alias!r} is an alias of model {holder!r}")


def _check_fallbacks(
    model_id: ModelId, new: Links, old: Links, others: Others, *, from_the_past: bool
) -> Iterator[Problem]:
    for place, fallback in enumerate(new.fallbacks):
        if fallback in old.fallbacks:
            continue
        path = _path(fallback, model_id, others)
        if path:
            yield Problem(f"/fallbacks/{place}", "fallback_loop", _told([model_id, *path]))
        elif fallback not in others.live and not from_the_past:
            detail = f"there is no model {fallback!r}; a fallback is named by its id, not by an alias"
            yield Problem(f"/fallbacks/{place}", "unknown_model", detail)


def _holder(name: str, others: Others) -> ModelId | None:
    """Whose alias it is."""
    return min((other for other, links in others.links.items() if name in links.aliases), default=None)


def _path(start: ModelId, end: ModelId, others: Others) -> list[ModelId]:
    """A shortest way along fallbacks, both ends included; empty when there is none."""
    came_from: dict[ModelId, ModelId | None] = {start: None}
    reached = [start]
    for model_id in reached:  # grows while it is read
        if model_id == end:
            path: list[ModelId] = []
            step: ModelId | None = end
            while step is not None:
                path.append(step)
                step = came_from[step]
            return path[::-1]
        for fallback in others.links.get(model_id, Links()).fallbacks:
            if fallback not in came_from:
                came_from[fallback] = model_id
                reached.append(fallback)
    return []


def _told(loop: Sequence[ModelId]) -> str:
    shown = loop if len(loop) <= MOST_TOLD else [*loop[: MOST_TOLD - 2], "...", loop[-2], loop[-1]]
    return "a loop: " + " -> ".join(shown)
