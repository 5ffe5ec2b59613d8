"""Measure: how good a quantizer is, in numbers."""
