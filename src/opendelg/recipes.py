"""Extractors by name, and the extractor that made a collection."""

from pathlib import Path

from opendelg.collection import Collection, Recipe
from opendelg.extraction import ExtractionConfig, Extractor, profile
from opendelg.runtime import Device, choose_runtime
from opendelg.settings import read_settings, settings_as_dict
from opendelg.weights import DEFAULT_MODEL, PUBLISHED, Weights, load_weights

DEFAULT_PROFILE = "balanced"


def make_extractor(
    model: str = DEFAULT_MODEL,
    config: ExtractionConfig | None = None,
    device: Device = "auto",
    threads: int | None = None,
) -> Extractor:
    """An extractor with the weights of a name or file.

    Args:
        model: Published name or file of the weights.
        config: How features are extracted; None: the default profile.
        device: Where the network runs.
        threads: CPU threads; None: all.
    """
    weights = load_weights(model)
    runtime = choose_runtime(weights, device, threads)
    return Extractor(weights, config or profile(DEFAULT_PROFILE), runtime)


def recipe_of(extractor: Extractor) -> Recipe:
    """What a collection keeps of the extractor that makes it."""
    weights, config = extractor.weights, extractor.config
    return Recipe(_known_as(weights), weights.sha256, settings_as_dict(config), weights.model)


def extractor_for(
    collection: Collection,
    device: Device = "auto",
    threads: int | None = None,
    model: str | None = None,
    config: ExtractionConfig | None = None,
) -> Extractor:
    """The extractor that made a collection.

    Args:
        collection: Names the weights and settings.
        device: Where the network runs.
        threads: CPU threads; None: all.
        model: Where the weights are now, if not where they were.
        config: Settings that must be the collection's; None: whatever these are.

    Raises:
        FormatError: If the weights or the settings are not the collection's.
        WeightsError: If the weights are not where they were.
    """
    recipe = collection.recipe
    if config is None:
        config = read_settings(ExtractionConfig, recipe.extraction, collection.location)
    extractor = make_extractor(model or recipe.weights_name, config, device, threads)
    collection.require_recipe(recipe_of(extractor))
    return extractor


def open_or_create(location: Path | str, extractor: Extractor) -> Collection:
    """The collection that is there, or a new one, made by the extractor or refused."""
    recipe = recipe_of(extractor)
    if not Collection.exists(location):
        return Collection.create(location, recipe, extractor.config.precision)
    collection = Collection.open(location)
    try:
        collection.require_recipe(recipe)
    except BaseException:
        collection.close()
        raise
    return collection


def _known_as(weights: Weights) -> str:
    """The published name of weights, or where their file is."""
    for name, known in PUBLISHED.items():
        if known.file == weights.path:
            return name
    return str(weights.path.absolute())
