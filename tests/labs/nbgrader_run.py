"""Run by a test in an interpreter that has nbgrader: a course from source to feedback, its grades as JSON."""

import json
import os
import sys
import warnings
from pathlib import Path


def main(folder: Path, lab: str) -> None:
    warnings.simplefilter("ignore")
    from nbgrader.api import Gradebook
    from nbgrader.apps import NbGraderAPI
    from nbgrader.validator import Validator
    from traitlets.config import Config

    os.chdir(folder)
    config = Config()
    exec((folder / "nbgrader_config.py").read_text(), {"get_config": lambda: config})
    config.CourseDirectory.root = str(folder)
    config.Validator.validate_all = True
    api = NbGraderAPI(config=config)
    told = {"generate": api.generate_assignment(lab, create=True)["success"]}
    told["validate"] = Validator(config=config).validate(f"source/{lab}/{lab}.ipynb")
    for student in sorted(path.name for path in (folder / "submitted").iterdir()):
        told[f"autograde {student}"] = api.autograde(lab, student, create=True)["success"]
    told["feedback"] = api.generate_feedback(lab)["success"]
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as book:
        told["grades"] = {
            s.student.id: {g.name: g.auto_score for n in s.notebooks for g in n.grades}
            for s in book.assignment_submissions(lab)
        }
    print("\n" + json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
