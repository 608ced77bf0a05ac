"""Make tests/data/leveldbs: databases as LevelDB itself writes them, for the tests of the reader.

They are kept in the repository because plyvel, which brings LevelDB, has no wheels for each Python that the tests run
on. Run it where it has: python -m scripts.tools.make_leveldbs"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import plyvel

from tests.data.databases import LEVELDBS, Contents, leveldb_contents


def caffe(path: str, contents: Contents) -> None:
    """As convert_imageset leaves a small data set: one batch of puts, in the log alone."""
    options = {"block_size": 65536, "write_buffer_size": 268435456}
    with plyvel.DB(path, create_if_missing=True, **options) as database, database.write_batch() as batch:
        for key, value in contents.items():
            batch.put(key, value)


def levels(path: str, contents: Contents) -> None:
    """Tables on two levels and a log, with changes of each key on most of them; a table a time it is opened."""
    keys = list(contents)
    draw = random.Random(0)
    for round_ in range(5):
        with plyvel.DB(path, create_if_missing=True, block_size=512) as database:
            for key in draw.sample(keys, 60):
                database.put(key, b"of before")
                database.put(key + b"-", b"of before")
            if round_ == 1:
                database.compact_range()
    with plyvel.DB(path) as database:
        for key, _ in list(database):
            database.delete(key)
        for key in keys[:100]:
            database.put(key, contents[key])
    with plyvel.DB(path) as database:
        for key in keys[100:]:
            database.put(key, contents[key])


def plain(path: str, contents: Contents) -> None:
    """One table that is not compressed."""
    with plyvel.DB(path, create_if_missing=True, compression=None, block_size=1024) as database:
        for key, value in contents.items():
            database.put(key, value)
        database.compact_range()


MAKERS: tuple[Callable[[str, Contents], None], ...] = (caffe, levels, plain)

if __name__ == "__main__":
    for make in MAKERS:
        folder = Path(LEVELDBS) / make.__name__
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        make(str(folder), leveldb_contents(make.__name__))
        for name in ("LOG", "LOG.old", "LOCK"):  # when and where it was written
            (folder / name).unlink(missing_ok=True)
