"""Notebooks in a real JupyterLab in a real Chromium: lab.open_lab, and `python -m tests.browser.drive -h`."""
