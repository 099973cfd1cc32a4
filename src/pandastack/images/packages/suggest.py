"""What an author may have meant by the name of a package that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_IMPORTED_AS = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "pymupdf",
    "git": "gitpython",
    "jwt": "pyjwt",
    "pil": "pillow",
    "pptx": "python-pptx",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Names that people import, and the packages that have them."""

# fmt: off
_POPULAR = (
    "aiohttp", "altair", "beautifulsoup4", "black", "bokeh", "boto3", "celery", "click", "cryptography",
    "cython", "dask", "django", "duckdb", "fastapi", "flask", "geopandas", "gunicorn", "httpx", "ipykernel",
    "ipython", "jinja2", "jupyterlab", "keras", "lxml", "matplotlib", "mypy", "networkx", "nltk", "numba",
    "numpy", "openai", "opencv-python", "openpyxl", "pandas", "pillow", "playwright", "plotly", "polars",
    "psutil", "psycopg", "pyarrow", "pydantic", "pyjwt", "pytest", "python-dateutil", "pyyaml", "redis",
    "requests", "rich", "ruff", "scikit-learn", "scipy", "seaborn", "selenium", "spacy", "sqlalchemy",
    "statsmodels", "streamlit", "sympy", "tensorflow", "torch", "tqdm", "transformers", "typer", "uvicorn",
    "xgboost", "xlsxwriter",
)
# fmt: on
"""Widely used packages."""


def suggest(name: str, known: Iterable[str]) -> str | None:
    """A hint with the names in ``known`` that are most like ``name``."""
    close = get_close_matches(name, known, n=3, cutoff=0.7)
    return f"did you mean {' or '.join(close)}?" if close else None


def suggest_python(name: str) -> str | None:
    """The same for Python: among names that are imported, and among widely used packages."""
    if meant := _IMPORTED_AS.get(name):
        return f"the package that brings {name} is {meant}"
    return suggest(name, _POPULAR)
