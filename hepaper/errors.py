"""The one exception a user's mistake raises.

Everything a user can get wrong (a params file, a cohort table, a scan, a missing stage) ends in a
:class:`HepaperError` whose message is one clear line: which file, what is wrong, what to do. The command line
prints that line and exits with status 1; any other exception is a defect of ours and keeps its traceback.
"""


class HepaperError(Exception):
    """A mistake the user can repair; ``str(error)`` says how."""
