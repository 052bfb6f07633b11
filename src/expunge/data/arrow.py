"""Tables in Apache Arrow's formats: Parquet files, and folders that Hugging Face ``datasets`` saved (extra ``arrow``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expunge.core.errors import ExtraMissingError, InputError, of_the_machine
from expunge.core.files import read_json
from expunge.data.bounds import largest, memory

PARQUET = ".parquet"
STATE = "state.json"  # of a folder that ``Dataset.save_to_disk`` wrote


def is_arrow(path: Path) -> bool:
    """Whether ``path`` is a Parquet file, or a folder of ``datasets``, by its name and what lies in it."""
    return path.suffix.lower() == PARQUET or (path / STATE).is_file() or (path / "dataset_dict.json").is_file()


def read_arrow(path: Path) -> Any:
    """The table as pandas has it, every row in its order.

    Args:
        path: a Parquet file, or a folder that ``datasets.Dataset.save_to_disk`` wrote (one split of it).

    Raises:
        InputError: for a missing or damaged file, a folder of several splits, one whose rows were selected through an indices
            file, a table without rows, or one that would not fit into memory.
        ExtraMissingError: without the extra ``arrow``.
    """
    try:
        import pyarrow as arrow  # pyright: ignore[reportMissingImports]  # an extra
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ExtraMissingError("arrow", "pyarrow") from None
    if not path.exists():
        raise InputError(f"There is no file or folder {path}; give a Parquet file, or a folder that datasets saved.")
    if (path / "dataset_dict.json").is_file():
        splits = ", ".join(sorted(each.name for each in path.iterdir() if (each / STATE).is_file()))
        raise InputError(f"{path} holds several splits ({splits}); name the folder of one.")
    try:
        if path.is_dir():
            state = read_json(path / STATE)
            if state.get("_indices_data_files"):
                raise InputError(
                    f"{path.name} selects its rows through a file of indices; save it flattened (flatten_indices())."
                )
            parts = [path / each["filename"] for each in state["_data_files"]]
            if outside := [part for part in parts if part.resolve().parent != path.resolve()]:
                raise InputError(
                    f"{path.name} names a file outside of its folder ({outside[0].name}); that is not read."
                )
            table = arrow.concat_tables(
                [arrow.ipc.open_stream(arrow.memory_map(str(part))).read_all() for part in parts]
            )
        else:
            with parquet.ParquetFile(path) as file:
                _must_fit(file.metadata, path)
                table = file.read()
    except (arrow.ArrowException, OSError, KeyError, TypeError, AttributeError) as error:
        if of_the_machine(error):
            raise
        raise InputError(f"{path.name} cannot be read as a table of Arrow's: {error!s:.200}. Save it again.") from None
    if not table.num_rows:
        raise InputError(f"{path.name} has no rows; give a table with at least one.")
    return table.to_pandas()


def _must_fit(said: Any, path: Path) -> None:
    """Raise InputError for a Parquet file whose numbers alone would not fit into memory: a repeated value takes next to no room
    in it, and eight bytes of a table each time."""
    needed, there = 8 * said.num_rows * said.num_columns, memory()
    if needed > max(largest(path.stat().st_size), there // 2):
        raise InputError(
            f"{path.name} has {path.stat().st_size:,} bytes and holds {said.num_rows:,} rows of {said.num_columns} columns, at "
            f"least {needed / 2**30:.3g} GiB in memory; this machine has {there / 2**30:.3g} GiB. Give a part of the table."
        )


def write_parquet(frame: Any, path: Path) -> None:
    """Write a table of pandas to ``path`` as a Parquet file, without its index."""
    frame.to_parquet(path, engine="pyarrow", index=False)
