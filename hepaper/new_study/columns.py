"""Which of the user's columns is which of ours: proposed from their names, shown always, guessed never.

A column is taken where its name is ours, or one of the names in :data:`SYNONYMS`, and no other fits as well. Anything
else must be named by the user. A name in braces is a pattern: ``scans/{MRN}/first`` fills in the column ``MRN``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hepaper.cohort.table import COLUMNS, REQUIRED
from hepaper.errors import HepaperError

#: Our column -> what else it is called, without spaces, signs and units. "surgery" and "ivh" are not here: surgery
#: *before the follow-up* and *primary* hemorrhage are meant, which such columns need not say.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "patient_id": (
        "id", "patient", "patid", "pid", "mrn", "subject", "subjectid", "case", "caseid", "casenumber", "recordid",
        "recordnumber", "patientno", "patientnumber", "medicalrecordnumber",
    ),
    "center": ("centre", "site", "hospital", "institution", "clinic", "centername", "centrename", "hospitalname", "sitename"),
    "split": ("set", "dataset", "subset", "partition"),
    "age": ("patientage", "ageatonset", "ageatadmission", "ageatct"),
    "sex": ("gender", "mf", "malefemale", "patientsex"),
    "onset_to_baseline_h": (
        "onsettobaselinect", "onsettoct", "onsettofirstct", "onsettoct1", "onsettoscan",
        "timefromonset", "timefromonsettoct", "timefromonsettobaselinect", "timetoct", "timetobaselinect",
        "timetofirstct", "symptomonsettoct", "fromonset",
    ),
    "baseline_to_followup_h": (
        "baselinetofollowupct", "timetofollowup", "timetofollowupct", "timebetweenscans",
        "timebetweencts", "betweenscans", "betweencts", "followupinterval", "intervalbetweencts", "interscaninterval", "ct1toct2",
        "firsttosecondct",
    ),
    "baseline_ct": ("baselinescan", "firstct", "firstscan", "ct1", "scan1", "initialct", "admissionct", "ctbaseline"),
    "followup_ct": ("followupscan", "secondct", "secondscan", "ct2", "scan2", "repeatct", "controlct", "ctfollowup"),
    "baseline_mask": ("baselineoutline", "firstmask", "firstoutline", "mask1", "outline1", "ct1mask", "baselinesegmentation", "segmentation1"),
    "followup_mask": ("followupoutline", "secondmask", "secondoutline", "mask2", "outline2", "ct2mask", "followupsegmentation", "segmentation2"),
    "surgery_before_followup": ("surgerybeforefollowupct", "surgerybeforesecondct", "surgerybeforect2"),
    "primary_ivh": ("primaryintraventricularhemorrhage", "primaryintraventricularhaemorrhage"),
    "image_quality": ("quality", "ctquality", "scanquality"),
    "mrs_90d": ("mrs90", "mrs90days", "mrsat90days", "mrs3m", "mrs3months", "90daymrs", "3monthmrs"),
}  # fmt: skip

#: Unit -> how many of ours it is: hours for the times, years for the age.
HOURS = {
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 1.0),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 1 / 60),
    **dict.fromkeys(("d", "day", "days"), 24.0),
}
YEARS = {**dict.fromkeys(("y", "yr", "yrs", "year", "years"), 1.0), **dict.fromkeys(("month", "months"), 1 / 12)}
UNITS = {"age": YEARS, "onset_to_baseline_h": HOURS, "baseline_to_followup_h": HOURS}
_UNIT_NAMES = {1.0: "", 1 / 60: "minutes, divided by 60", 24.0: "days, times 24", 1 / 12: "months, divided by 12"}
_PATTERN = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Match:
    """One of our columns and the user's (or a pattern) that fills it; ``factor`` turns its numbers into our unit."""

    ours: str
    theirs: str
    how: str
    factor: float = 1.0
    unit: str = ""

    @property
    def is_pattern(self) -> bool:
        """Whether cells are made from other columns."""
        return bool(_PATTERN.search(self.theirs))

    def line(self) -> str:
        """The match in words."""
        return f"{self.ours} <- {self.theirs} ({self.how}{', ' + self.unit if self.unit else ''})"


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def _bare(name: str) -> str:
    """A name without signs and without the unit at its end: ``Time from onset (min)`` is ``timefromonset``."""
    words = _words(name)
    while len(words) > 1 and words[-1] in {*HOURS, *YEARS, "in"}:
        words.pop()
    return "".join(words)


def _unit(ours: str, theirs: str) -> tuple[float, str]:
    """The factor of the unit that a column's name ends in, and what to say of it."""
    known = UNITS.get(ours)
    if known is None:
        return 1.0, ""
    last = (_words(theirs) or [""])[-1]
    if last in known:
        return known[last], _UNIT_NAMES[known[last]]
    return 1.0, "taken as years" if ours == "age" else "taken as hours"


def parse_maps(items: Sequence[str]) -> dict[str, str]:
    """``["sex=Gender", ...]`` as a mapping.

    Raises
    ------
    HepaperError
        For what is not of that form, or no column of ours.
    """
    found = {}
    for item in items:
        ours, sign, theirs = (part.strip() for part in item.partition("="))
        if not sign or not theirs:
            raise HepaperError(f"--map {item}: write OURS=THEIRS, such as --map sex=Gender")
        if ours not in COLUMNS:
            near = difflib.get_close_matches(ours, COLUMNS, n=1, cutoff=0.6)
            hint = f"did you mean '{near[0]}'?" if near else f"ours are {', '.join(COLUMNS)}"
            raise HepaperError(f"--map {item}: no column '{ours}'; {hint}")
        if ours in found:
            raise HepaperError(f"--map {item}: '{ours}' is given twice; give it once")
        found[ours] = theirs
    return found


def quoted(ours: str, theirs: str) -> str:
    """A ``--map`` as one would type it."""
    text = f"{ours}={theirs}"
    return f"--map {text}" if re.fullmatch(r"[\w.=/-]+", text) else f'--map "{text}"'


def propose(header: Sequence[str], named: Mapping[str, str]) -> tuple[dict[str, Match], list[str]]:
    """The mapping to use, and one line for every column that is missing or could be several.

    Parameters
    ----------
    header
        The user's column names.
    named
        What the user has decided: our column -> theirs, or a pattern of theirs.
    """
    matches: dict[str, Match] = {}
    problems: list[str] = []
    for ours, theirs in named.items():
        inside = _PATTERN.findall(theirs) if _PATTERN.search(theirs) else [theirs]
        absent = [name for name in inside if name not in header]
        if absent:
            near = difflib.get_close_matches(absent[0], header, n=1, cutoff=0.6)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(header)}"
            problems.append(f"{ours}: the table has no column '{absent[0]}'; {hint}")
        else:
            matches[ours] = Match(ours, theirs, "named by you", *_unit(ours, theirs))
    taken = {match.theirs for match in matches.values()}
    shared = {matches["split"].theirs} if "split" in matches else set()  # centers may say the split
    for ours in COLUMNS:
        if ours in named:
            continue
        candidates, how = _candidates(
            ours, [name for name in header if name not in taken - (shared if ours == "center" else set())]
        )
        if len(candidates) == 1:
            matches[ours] = Match(ours, candidates[0], how, *_unit(ours, candidates[0]))
        elif candidates:
            choice = " or ".join(quoted(ours, name) for name in candidates)
            problems.append(f"{ours}: {len(candidates)} columns could be it; give {choice}")
    used = {match.theirs for match in matches.values()}
    free = [name for name in header if name not in used]
    for ours in REQUIRED:
        if ours in matches or any(line.startswith(f"{ours}:") for line in problems):
            continue
        problems.append(f"{ours}: no column is called so; {_advice(ours, free)}")
    return {ours: matches[ours] for ours in COLUMNS if ours in matches}, problems


def _advice(ours: str, free: Sequence[str]) -> str:
    by_name = {_bare(name): name for name in free}
    near = difflib.get_close_matches(_bare(ours), by_name, n=1, cutoff=0.75)
    if near:
        return f"if '{by_name[near[0]]}' is it: {quoted(ours, by_name[near[0]])}"
    unused = f"not used so far: {', '.join(free[:8])}{', ...' if len(free) > 8 else ''}" if free else "none is left"
    if ours == "split":
        return (
            "where each center has its split, name the column of centers and say which is which, for instance --map "
            f"split=CENTERS --value split:North=train --value split:South=external_1 ({unused})"
        )
    if ours.endswith("_ct"):
        return (
            f'name the column of paths, or a pattern of folders, for instance --map "{ours}=scans/{{MRN}}/'
            f'{"first" if ours.startswith("baseline") else "second"}" ({unused})'
        )
    return f"name it: --map {ours}=THEIRS ({unused})"


def _candidates(ours: str, header: Sequence[str]) -> tuple[list[str], str]:
    """The columns that fit best, and how well."""
    if ours in header:
        return [ours], "same name"
    plain = "".join(_words(ours))
    same = [name for name in header if "".join(_words(name)) == plain or _bare(name) == _bare(ours)]
    if same:
        return same, "same name, written otherwise"
    known = SYNONYMS.get(ours, ())
    return [name for name in header if "".join(_words(name)) in known or _bare(name) in known], "a name it often has"


def apply(match: Match, cells: pd.DataFrame) -> pd.Series:
    """The user's cells for one of our columns, as text; a pattern with an empty part gives an empty cell."""
    if not match.is_pattern:
        return cells[match.theirs].copy()
    return pd.Series([_filled(match.theirs, row) for row in cells.to_dict("records")], index=cells.index, dtype=str)


def _filled(pattern: str, row: Mapping[Any, str]) -> str:
    if any(not row[name] for name in _PATTERN.findall(pattern)):
        return ""
    return _PATTERN.sub(lambda part: row[part[1]], pattern)
