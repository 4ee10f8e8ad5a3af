"""The tables that experiments fill: their schemas, what is chosen on validation images, and the summaries.

Apart from the measurements, because they need no torch: a job that joins shards starts in a second, and an
edit of an estimator does not rerun it.
"""

from importlib import import_module
from pkgutil import iter_modules


def modules() -> list[str]:
    """Return the names of the modules of this package."""
    return [module.name for module in iter_modules(__path__)]


def import_all() -> None:
    """Import every module, so that ``curvelens.tables.SCHEMAS`` knows every table."""
    for name in modules():
        import_module(f"{__name__}.{name}")
