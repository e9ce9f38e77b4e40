"""The units of cached work, one file each."""
