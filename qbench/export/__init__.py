"""Exported cells: folders that hold a packed model and all that is needed to sample from it."""
