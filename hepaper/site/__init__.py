"""The site: rendered books of all versions and studies in one folder of plain files, and the page that lists them."""

from hepaper.site.publishing import publish
from hepaper.site.stamp import stamp

__all__ = ["publish", "stamp"]
