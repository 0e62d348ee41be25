"""What it takes to teach with a run's book: what comes before each stage, and how long the run took, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hepaper.study import STAGES, Stage, stage_named

# the sessions of book/teaching.md, by the stages that each of them opens
SESSIONS: tuple[tuple[str, ...], ...] = (
    ("audit",),
    ("cohort", "phantom"),
    ("preprocess", "benchmark"),
    ("segmentation", "volume"),
    ("roi", "augmentation"),
    ("quality", "reader_study"),
    ("classification", "statistics"),
    ("gradcam", "calibration"),
    ("beyond",),
    ("audit_code", "reporting", "beside"),
)
HOSTED_CORES = 2  # that the estimate for a hosted notebook assumes


def duration(seconds: float) -> str:
    """Seconds in the unit that one would say."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def hosted(seconds: float, cores: int) -> str:
    """The time on :data:`HOSTED_CORES` cores that are as fast as the run's ``cores``: from what it is if one core did
    the work, to what it is if all did. An estimate; no such machine was timed."""
    other = seconds * cores / HOSTED_CORES
    low, high = duration(min(seconds, other)), duration(max(seconds, other))
    return low if low == high else f"{low} to {high}"


def _before(stage: Stage) -> str:
    chapters = [f"[{needed.replace('_', ' ')}]({stage_named(needed).notebook}.md)" for needed in stage.needs]
    if not chapters:
        return "no other stage"
    listed = f"{', '.join(chapters[:-1])} and {chapters[-1]}" if len(chapters) > 1 else chapters[0]
    return f"the stage{'s' if len(chapters) > 1 else ''} {listed} first"


def lessons(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Text for the book from ``provenance.json``, whatever of the study has run.

    Returns
    -------
    ``takes``: by stage, the second half of a chapter's box; ``sessions``: a list with the times of the course's
    sessions; ``course``: the same for all of them together. Times have the keys ``laptop`` and ``hosted``.
    """
    seconds = provenance.get("seconds") or {}
    cores = (provenance.get("machine") or {}).get("cores")
    machine = f"a machine with {cores} core{'' if cores == 1 else 's'}" if cores else "its machine"

    def times(names: tuple[str, ...]) -> dict[str, str]:
        known = [seconds[name] for name in names if name in seconds]
        if not known:
            return {"laptop": "not timed", "hosted": "not known"}
        return {"laptop": duration(sum(known)), "hosted": hosted(sum(known), cores) if cores else "not known"}

    takes = {}
    for stage in STAGES:
        if stage.name in seconds:
            time = f"{'then ' if stage.needs else ''}{duration(seconds[stage.name])} in this run, on {machine}"
        else:
            time = "this run did not record for how long"
        takes[stage.name] = f"{_before(stage)}; {time}."
    return {
        "takes": takes,
        "sessions": [times(names) for names in SESSIONS],
        "course": times(tuple(name for names in SESSIONS for name in names)),
    }
