"""What a recipe says of itself."""

import re
from dataclasses import fields

import pytest

from lesionwise.recipe import Citation, Recipe
from lesionwise.run.recipes import find_recipe, recipe_names, recipes, settings

REFERENCE = re.compile(r"(?<![\d.,])00\d(, |:)|document 00\d|\bline \d|\bp\d{3,4}\b")
"""References to the project's own copies of documents, which no user has."""


def test_a_citation_leaves_out_what_is_not_printed() -> None:
    assert str(Citation(title="Notes", year=1843)) == "Notes. 1843"
    assert str(Citation("A. Byron", "Notes", 1843, "Memoirs", "doi:1")) == (
        "A. Byron. Notes. Memoirs, 1843. doi:1"
    )


@pytest.mark.parametrize(
    ("authors", "short"),
    [
        ("Ada Byron", "Byron 1843"),
        ("Ada Byron, Luigi Menabrea", "Byron and Menabrea 1843"),
        ("Ada Byron, Luigi Menabrea, Mary Somerville", "Byron et al. 1843"),
        ("A. Byron et al.", "Byron et al. 1843"),
        ("", "Memoirs, 1843"),
    ],
)
def test_a_short_citation_is_authors_and_year(authors, short) -> None:
    assert Citation(authors, "Notes", 1843, "Memoirs").short == short


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_cites_a_publication(name) -> None:
    citation = find_recipe(name).citation
    assert citation.title
    assert citation.short


@pytest.mark.parametrize("name", recipe_names())
def test_what_users_see_of_a_recipe_refers_to_no_private_document(name) -> None:
    (facts,) = recipes(name)
    shown = [facts.description, str(facts.recipe.citation), *facts.recipe.departures]
    shown += [f"{key} {value}" for key, value in facts.settings.items()]
    assert not [text for text in shown if REFERENCE.search(text)]
    assert "passage" not in facts.settings


def test_what_describes_a_recipe_is_no_setting_of_it() -> None:
    names = {name.split(".")[0] for name in settings(find_recipe("conflunet"))}
    described = {"citation", "passage", "reported", "departures"}
    assert names == {field.name for field in fields(Recipe)} - described | {"is"}
