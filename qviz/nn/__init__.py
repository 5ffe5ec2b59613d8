"""Networks: what is done with quantizers in a model. Needs the core alone."""
