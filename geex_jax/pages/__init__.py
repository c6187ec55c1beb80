"""Reports as pages that need nothing else, and their tables as plain text."""

from geex_jax.pages.html import assemble, escape, table_html
from geex_jax.pages.tables import NOTHING, Cell, Table, clean, text_table

__all__ = ["NOTHING", "Cell", "Table", "assemble", "clean", "escape", "table_html", "text_table"]
