"""From a hospital's spreadsheet and folders of scans to a study: ``hepaper new-study``.

Nothing here is part of a run. The study's folder that it writes holds the one file that leads back to the patients.
"""

from hepaper.new_study.intake import Intake, new_study, write_template

__all__ = ["Intake", "new_study", "write_template"]
