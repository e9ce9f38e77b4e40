"""The content-addressed store: artefacts that are computed once, and either whole or not there."""

from qbench.store.artefact import Artefact, Manifest
from qbench.store.maintenance import StoreEntry, Verification, collect_garbage, entries, verify
from qbench.store.store import Store, default_store_path

__all__ = [
    "Artefact",
    "Manifest",
    "Store",
    "StoreEntry",
    "Verification",
    "collect_garbage",
    "default_store_path",
    "entries",
    "verify",
]
