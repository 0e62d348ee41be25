"""hepaper: a reproducible study of hematoma expansion prediction from one non-contrast head CT.

The sub-modules follow the pipeline: ``params`` and ``study`` (what is run, and where it goes), ``cohort``,
``preprocess``, ``segmentation``, ``volume``, ``roi``, ``classification``, ``stats``; then ``tables``, ``figures``
and ``book``, which only draw what the stages wrote.
"""

from hepaper import machine
from hepaper._version import __version__
from hepaper.errors import HepaperError

machine.limit_threads()

__all__ = ["HepaperError", "__version__"]
