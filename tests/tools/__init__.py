"""Commands for those who work on qviz: python -m tests.tools.NAME."""
