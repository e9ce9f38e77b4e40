"""Extractors, metrics, distances and confidence."""
