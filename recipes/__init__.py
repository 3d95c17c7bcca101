"""Recipes that ship with milanx."""
