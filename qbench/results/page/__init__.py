"""The page: everything in one HTML file that needs no network."""
