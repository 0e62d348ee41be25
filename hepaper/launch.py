"""Buttons that open a notebook on a free machine elsewhere, and only where that works.

A hosted notebook starts in a checkout without any run, with the parameters as the notebook stores them. So a button
stands where the stage needs no other stage and no parameter sets the size of its work.
"""

from __future__ import annotations

from typing import Any

from hepaper.params import Params
from hepaper.study import stages_of

BINDER, COLAB = "https://mybinder.org", "https://colab.research.google.com"
BRANCH = "main"
_SIZELESS = {"cohort.source"}  # parameters that may be there: they do not change how much there is to compute


def runs_alone(params: Params) -> list[str]:
    """The book's notebook pages that run by themselves from the first cell to the last in a fresh checkout."""
    alone = [stage for stage in stages_of(params) if not stage.needs and set(stage.sections) <= _SIZELESS]
    return [f"notebooks/{stage.notebook}" for stage in alone]


def add_buttons(config: dict[str, Any], params: Params) -> None:
    """Point the book's configuration at ``book.repository``; without one it stays as it is, and shows no button."""
    repository = params.book.repository
    if not repository:
        return
    repository = repository.removesuffix(".git")
    colab = {"colab_url": COLAB} if repository.startswith("https://github.com/") else {}  # which reads nothing else
    sphinx = config.setdefault("sphinx", {}).setdefault("config", {})
    sphinx["hepaper_launch"] = runs_alone(params)
    # the theme's own options: jupyter-book's keys of the same meaning give way to them where both are there
    sphinx.setdefault("html_theme_options", {}).update(
        repository_url=repository,
        repository_branch=BRANCH,
        use_repository_button=True,
        launch_buttons={"notebook_interface": "jupyterlab", "binderhub_url": BINDER, **colab},
    )


def links(params: Params) -> dict[str, str]:
    """For the teaching page: what to clone, into which folder, and the repository's Binder (empty without one)."""
    if not params.book.repository:
        return {"clone": "https://github.com/OWNER/NAME", "name": "NAME", "binder": ""}
    repository = params.book.repository.removesuffix(".git")
    host, owner, name = repository.removeprefix("https://").split("/")
    place = f"gh/{owner}/{name}" if host == "github.com" else f"gl/{owner}%2F{name}"
    return {"clone": repository, "name": name, "binder": f"{BINDER}/v2/{place}/{BRANCH}?urlpath=lab"}


def _only_where_it_runs(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """After the theme: take its launch buttons off every page that would not run there."""
    if page not in app.config.hepaper_launch:
        context["header_buttons"] = [
            button for button in context.get("header_buttons", []) if button.get("label") != "launch-buttons"
        ]


def setup(app: Any) -> dict[str, bool]:
    """Sphinx extension."""
    app.add_config_value("hepaper_launch", [], "html")
    app.connect("html-page-context", _only_where_it_runs, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
