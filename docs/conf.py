"""How Sphinx builds the documentation."""

from __future__ import annotations

from liberate import __version__

project = "liberate"
author = "The liberate authors"
copyright = "The liberate authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "liberate"
html_static_path: list[str] = []

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_ivar = True
