"""Recipes: whole experiments as YAML files, and what runs them."""

from vsre.recipes.run import run_recipe
from vsre.recipes.schema import Recipe, load_recipe, recipe_names, recipe_text

__all__ = ["Recipe", "load_recipe", "recipe_names", "recipe_text", "run_recipe"]
