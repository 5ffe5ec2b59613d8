"""The tests of post-training quantization."""
