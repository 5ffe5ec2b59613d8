"""Labs that can be assigned: built for each student, checked by the student, graded in a sandbox."""

from __future__ import annotations
