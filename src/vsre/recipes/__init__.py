"""Recipes: whole experiments as YAML files, and the code that runs them."""

from vsre.recipes.files import RecipeFaults, load_recipe, recipe_names, recipe_text
from vsre.recipes.run import run_recipe
from vsre.recipes.schema import Recipe

__all__ = ["Recipe", "RecipeFaults", "load_recipe", "recipe_names", "recipe_text", "run_recipe"]
