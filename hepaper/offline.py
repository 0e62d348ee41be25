"""Sphinx extension: a page works from a folder, without a network and without complaints in the browser's console."""

from __future__ import annotations

from typing import Any

# The theme reports a reader's first visit as an error, for no colour mode is chosen yet. And a browser lets no page
# from a folder read another one, so the search there shows titles without the sentences around the term.
_SCRIPT = (
    "document.documentElement.dataset.mode ||= 'auto';"
    "if (location.protocol === 'file:') DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;"
)


def _without_kernels(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out the scripts for code that runs in the page: they come twice, which is an error, and fetch their rest
    from another host."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', {}).get('body')}"
    ]


def setup(app: Any) -> dict[str, bool]:
    """Connect to every page."""
    app.add_js_file(None, body=_SCRIPT)
    app.connect("html-page-context", _without_kernels, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
