"""Tiny, really trained diffusion models that ship with the package, their networks and how they were trained."""
