"""Inspection: look inside a model, layer by layer: what quantizing does to it, and why."""
