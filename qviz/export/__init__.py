"""Export: a quantized network outside of this package."""
