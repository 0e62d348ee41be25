"""The reader study: can readers tell synthetic hematomas from real ones? (paper, Table 2 and Fig. 5C).

``kit`` writes what the readers get, ``collect`` joins what they send back with the sealed key, ``analysis`` makes
Table 2 and what it leaves out, ``readers`` simulates readers where no human ones have read yet.
"""

from hepaper.reader_study.analysis import analyse
from hepaper.reader_study.collect import check_ratings, collect
from hepaper.reader_study.kit import Key, make_kit, read_key
from hepaper.reader_study.readers import simulate

__all__ = ["Key", "analyse", "check_ratings", "collect", "make_kit", "read_key", "simulate"]
