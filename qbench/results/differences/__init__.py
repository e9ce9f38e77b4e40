"""What differs between two cells, two folders of results or two artefacts."""
