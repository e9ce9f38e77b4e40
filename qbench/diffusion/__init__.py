"""Noise, samplers, codecs and the structure of denoisers."""
