"""Post-training quantization: no labels, a thousand images, minutes."""
