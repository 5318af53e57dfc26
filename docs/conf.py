"""How the documentation is built: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

import omniconv  # noqa: E402, from this checkout

project = "omniconv"
author = "The omniconv authors"
copyright = author
version = release = omniconv.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "docstrings", "options", "presets"]
exclude_patterns = ["_build", "_extensions"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "code"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # the shapes and ranges are in the text

html_theme = "furo"
html_title = "omniconv"
html_copy_source = False
