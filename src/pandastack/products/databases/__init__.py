"""Databases: a PostgreSQL server in a machine of its own, with credentials of its own, and copies of it as it runs."""

from pandastack.products.databases.archive.archive import Backups
from pandastack.products.databases.archive.archives import Archives
from pandastack.products.databases.archive.drills import Drill
from pandastack.products.databases.archive.plan import Window
from pandastack.products.databases.databases import Databases, open_databases
from pandastack.products.databases.dumps import Format
from pandastack.products.databases.numbers import Numbers, Statistics, Work
from pandastack.products.databases.records import Database
from pandastack.products.databases.server import MOST_LINES
from pandastack.products.databases.spec import SIZES, NewDatabase, checked_clone, checked_new

__all__ = [
    "MOST_LINES",
    "SIZES",
    "Archives",
    "Backups",
    "Database",
    "Databases",
    "Drill",
    "Format",
    "NewDatabase",
    "Numbers",
    "Statistics",
    "Window",
    "Work",
    "checked_clone",
    "checked_new",
    "open_databases",
]
