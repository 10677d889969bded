from dataclasses import replace

import pytest

from opendelg.collection import Recipe
from opendelg.errors import FormatError
from tests.collection_samples import RECIPE


def test_a_recipe_survives_json():
    back = Recipe.from_json(RECIPE.to_json())
    assert back.to_json() == RECIPE.to_json()
    assert RECIPE.differences(back) == []


def test_other_weights_are_named_on_both_sides():
    other = replace(RECIPE, weights_name="big", weights_sha256="cd" * 32)
    assert RECIPE.differences(other) == [
        "weights 'big' (sha256 cdcdcdcdcdcd) instead of 'tiny' (sha256 abababababab)"
    ]


def test_the_same_weights_under_another_name_are_the_same():
    assert RECIPE.differences(replace(RECIPE, weights_name="copy.safetensors")) == []


def test_each_setting_that_differs_is_named():
    other = replace(RECIPE, extraction={"max_size": 800, "flip": True, "nested": {"a": 1}})
    assert RECIPE.differences(other) == [
        "extraction.flip True instead of none",
        "extraction.max_size 800 instead of 1024",
        "extraction.nested {'a': 1} instead of none",
        "extraction.scales none instead of [0.7071, 1.0]",
    ]


def test_nested_settings_are_compared_one_by_one():
    ours = replace(RECIPE, model={"pooling": {"kind": "gem", "power": 3.0}})
    theirs = replace(RECIPE, model={"pooling": {"kind": "gem", "power": 4.0}})
    assert ours.differences(theirs) == ["model.pooling.power 4.0 instead of 3.0"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weights_name": 1}'])
def test_other_json_is_not_a_recipe(text):
    with pytest.raises(FormatError, match="recipe must be valid"):
        Recipe.from_json(text)
