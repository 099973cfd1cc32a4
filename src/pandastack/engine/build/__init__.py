"""From a recipe to an installed template."""
