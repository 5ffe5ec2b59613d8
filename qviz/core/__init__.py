"""The computing core: torch and numpy only, no pictures."""
