"""Methods: one file a paper, from the parts of core."""
