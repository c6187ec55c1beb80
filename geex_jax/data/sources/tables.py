"""Tables of code: JSON lines and Parquet, in the layouts of The Stack, CodeParrot, the Pile."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from geex_jax import languages
from geex_jax.data import storage
from geex_jax.data.document import Document, Part, Passed
from geex_jax.data.sources.fields import Fields, fields_of
from geex_jax.data.sources.lines import LineSource
from geex_jax.data.sources.listing import FileSource, locator
from geex_jax.data.stages.language import by_name
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES

_BATCH_ROWS = 64
_MAX_GROUP = 2 << 30


@dataclasses.dataclass(frozen=True)
class TableSource(FileSource):
    """What both kinds of tables share.

    Attributes:
      layout: "auto" (known names of fields), or one of `fields.LAYOUTS`.
      text_field: name of the field that holds the code; "" for the layout's, as below. A dot
        leads into a field: "meta.path".
      language_field: of the language's name.
      licence_field: of the licence.
      path_field: of the file's path.
      language: of all rows that do not tell their own; "" for none.
    """

    layout: str = "auto"
    text_field: str = ""
    language_field: str = ""
    licence_field: str = ""
    path_field: str = ""
    language: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fields(())
        given_language(self.language)

    def fields(self, columns: Any) -> Fields:
        """Returns the fields of rows with these columns."""
        return fields_of(
            columns,
            self.layout,
            text=self.text_field,
            language=self.language_field,
            licence=self.licence_field,
            path=self.path_field,
        )

    def document(self, path: str, values: Mapping[str, Any], fields: Fields) -> Document | Passed:
        """Returns the document of a row, or why there is none."""
        row = fields.row(values)
        if row is None:
            return Passed("no_text", path)
        if not row.code:
            return Passed("no_code_set", path, 1, len(row.text))
        if len(row.text) > self.limits.max_bytes:
            return Passed("too_large", path, 1, len(row.text))
        language, ask = row.language, False
        if language is None and row.path:
            language, ask = by_name(row.path.rsplit("/", 1)[-1]) or (-1, False)
        if language is None:
            language = given_language(self.language)
            ask = language < 0
        if language < 0 and not ask:
            return Passed("unknown_language", path, 1, len(row.text))
        document = Document(self.name, path, text=row.text, language=language, ask_content=ask)
        if row.path:  # the name of the file, for whoever asks its ending
            document.path = f"{path}/{row.path.lstrip('/')}"
        document.licence = row.licence or self.licence
        return document


def given_language(name: str) -> int:
    """Returns the index of a language by its name, -1 for "".

    Raises:
      GeexError: no such language.
    """
    return LANGUAGES.index(languages.get(name)) if name else -1


@dataclasses.dataclass(frozen=True)
class JsonlSource(LineSource, TableSource):
    """JSON lines, plain (in parts of 64 MB) or compressed (a part each)."""

    patterns = tuple(
        f"*.{ending}{packing}"
        for ending in ("jsonl", "ndjson", "json")
        for packing in ("", ".gz", ".zst", ".xz", ".bz2")
        if ending != "json" or packing
    )

    def of_row(self, path: str, row: dict[str, Any]) -> Document | Passed:
        """Returns the document of a row, or why there is none."""
        return self.document(path, row, self.fields(row))


@dataclasses.dataclass(frozen=True)
class ParquetSource(TableSource):
    """Parquet files, a part for each row group."""

    patterns = ("*.parquet", "*.parq")

    def __post_init__(self) -> None:
        super().__post_init__()
        _parquet()

    def parts(self, index: int) -> Iterator[Part | Passed]:
        """Yields the row groups; a file that is cut short is a `broken_file`.

        Raises:
          GeexError: there is no file.
        """
        parquet = _parquet()
        for entry in self.entries():
            try:
                with storage.open_read(self.path_of(entry.path)) as file:
                    metadata = parquet.ParquetFile(file, pre_buffer=False).metadata
                    sizes = [
                        metadata.row_group(i).total_byte_size
                        for i in range(metadata.num_row_groups)
                    ]
            except MemoryError:
                raise
            except Exception:  # Arrow's errors and the storage's
                yield Passed("broken_file", self.shown(entry.path), 1, entry.size)
                continue
            for group, size in enumerate(sizes):
                where = locator(file=entry.path, group=group)
                yield Part(index, where, max(size, 0), entry.stamp)

    def read(self, part: Part) -> Iterator[Document | Passed]:
        """Reads the rows of a row group, some at a time."""
        where = json.loads(part.locator)
        shown = self.shown(where["file"])
        try:
            with storage.open_read(self.path_of(where["file"])) as file:
                yield from self._group(file, where["group"], shown)
        except MemoryError:
            raise
        except Exception:  # Arrow's errors and the storage's
            yield Passed("broken_file", f"{shown}:{where['group']}")

    def _group(self, file: Any, group: int, shown: str) -> Iterator[Document | Passed]:
        parquet = _parquet()
        options: dict[str, Any] = {"pre_buffer": False, "buffer_size": 1 << 20}
        table = parquet.ParquetFile(file, **options)
        fields = self.fields(table.schema_arrow.names)
        columns = [name for name in fields.columns() if name in table.schema_arrow.names]
        rows = table.metadata.row_group(group)
        if not columns or fields.text.split(".")[0] not in columns:
            yield Passed("no_text", f"{shown}:{group}", rows.num_rows)
            return
        if _largest(rows, columns) > _MAX_GROUP:
            yield Passed("too_large", f"{shown}:{group}", rows.num_rows, rows.total_byte_size)
            return
        file.seek(0)
        # Equal texts stay one in memory: else a page of a few MB can mean terabytes of rows.
        texts = [fields.text] if fields.text in columns else []
        table = parquet.ParquetFile(file, read_dictionary=texts, **options)
        number = 0
        for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
            for i in range(batch.num_rows):
                values = {name: batch.column(name)[i].as_py() for name in columns}
                yield self.document(f"{shown}:{group}.{number}", _decoded(values, fields), fields)
                number += 1


def _largest(rows: Any, columns: list[str]) -> int:
    sizes = [
        rows.column(i).total_uncompressed_size
        for i in range(rows.num_columns)
        if rows.column(i).path_in_schema.split(".")[0] in columns
    ]
    return max(sizes, default=0)


def _decoded(values: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """Returns the row with its text as text: some tables hold it as bytes."""
    text = values.get(fields.text)
    if isinstance(text, bytes):
        values[fields.text] = text.decode("utf-8", "surrogateescape")
    return values


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise GeexError("Parquet needs pyarrow", 'pip install "geex-jax[data]"') from None
    return pyarrow.parquet
