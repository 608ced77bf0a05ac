"""Records into an LMDB; apart from what trains nets, so that no PyTorch is needed for it."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import lmdb

from distcalib.caffe import caffe_pb2


def write_lmdb(folder: Path, records: Iterable[caffe_pb2.Datum | caffe_pb2.AnnotatedDatum]) -> None:
    """Keys 00000000, 00000001, ...; compacted, so that the file is as large as what it holds."""
    with tempfile.TemporaryDirectory() as scratch, lmdb.open(scratch, map_size=1 << 26) as env:
        with env.begin(write=True) as txn:
            for i, record in enumerate(records):
                txn.put(b"%08d" % i, record.SerializeToString(deterministic=True), append=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        env.copy(str(folder), compact=True)
    (folder / "lock.mdb").unlink(missing_ok=True)
