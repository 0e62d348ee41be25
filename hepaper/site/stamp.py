"""What identifies a rendered book: version, revision, study, parameters, day; and in short what it found."""

from __future__ import annotations

import datetime
import hashlib
import html
import json
from collections.abc import Mapping
from typing import Any

from hepaper._version import __version__
from hepaper.errors import HepaperError
from hepaper.study import Study

SCHEMA = 1  # of version.json and versions.js; keys may be added, never renamed: old books read new files
SETS = {"external_1": "external set 1", "external_2": "external set 2"}

# they say where files lie on someone's machine, not what was computed
PATHS = (("study", "runs_dir"), ("cohort", "table"), ("quality", "inception_weights"), ("book", "site"))


def without_paths(params: Mapping[str, Any]) -> dict[str, Any]:
    """Resolved parameters, as nested mappings, without those that are paths."""
    return {
        section: {key: value for key, value in values.items() if (section, key) not in PATHS}
        if isinstance(values, Mapping)
        else values
        for section, values in params.items()
    }


def params_hash(params: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of SHA-256 over the resolved parameters without paths."""
    text = json.dumps(without_paths(params), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def dig(content: Any, *keys: str) -> Any:
    """``content[key][key]…``, or None where a key is missing: runs of other versions may lack some."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def today() -> str:
    """The day, UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def stamp(study: Study) -> dict[str, Any]:
    """The content of a book's ``version.json``, without its pages. Nothing in it names a person or a place.

    Raises
    ------
    HepaperError
        If the run has no results yet.
    """
    files = {}
    for name in ("provenance.json", "results.json"):
        path = study.path(name)
        if not path.is_file():
            raise HepaperError(f"{path}: missing, the run is not finished; run the study first (hepaper run)")
        files[name] = json.loads(path.read_text("utf-8"))
    made, found = files["provenance.json"], files["results.json"]
    model = study.params.classification.main
    return {
        "schema": SCHEMA,
        "version": __version__,
        "computed_with": made.get("hepaper"),
        "git": made.get("git"),
        "git_dirty": bool(made.get("git_dirty")),
        "study": study.params.study.name,
        "title": study.params.book.title,
        "params_hash": params_hash(study.params.model_dump(mode="json")),
        "date": today(),
        "cohort": {
            "source": study.params.cohort.source,
            "patients": {name: dig(found, "cohort", name) for name in ("train", *SETS)},
        },
        "conclusion": dig(found, "statistics", "conclusion"),
        "model": model,
        "auc": {name: dig(found, "statistics", "models", model, name, "auc_text") for name in SETS},
        "dice": {name: dig(found, "segmentation", name, "dice_mean") for name in SETS},
    }


def revision(made: Mapping[str, Any]) -> str:
    """The git revision in words."""
    if not made.get("git"):
        return "not in git"
    return f"{made['git']} with local changes" if made.get("git_dirty") else str(made["git"])


def stamp_line(made: Mapping[str, Any]) -> str:
    """The stamp in one line of HTML, for the foot of every page."""
    version = f"hepaper {made['version']}"
    if made.get("computed_with") not in (None, made["version"]):
        version += f" (computed with {made['computed_with']})"
    parts = (
        version,
        f"revision {revision(made)}",
        f"study {made['study']}",
        f"parameters {made['params_hash']}",
        made["date"],
    )
    return '<span class="stamp">' + " · ".join(html.escape(str(part)) for part in parts) + "</span>"
