"""The files of a calibration: one net, with -fu or new weights some more."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from distcalib.caffe import Weights, caffe_pb2, resolve_sources, write_atomically
from distcalib.caffe.belonging import belonging_line, file_sha256
from distcalib.calibration.candidate_net import Deliverable, deliver, deliver_plain
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.output_files import Target
from distcalib.calibration.results import Observed
from distcalib.engine.net import Net
from distcalib.quantize.candidate import Candidate
from distcalib.report import CalibrationReport


@dataclass(frozen=True)
class Delivery:
    """The net `made`, and with -fu the same net without it, `plain`, to be run with the caffemodel given.

    `corrected`: layers whose bias is not the one given; `equalized`: those that were scaled, each with its reader.
    """

    made: Deliverable
    plain: Deliverable | None = None
    corrected: tuple[str, ...] = ()
    equalized: Mapping[str, str] = field(default_factory=dict)
    weights_sha256: str | None = None
    """Of the caffemodel that was written, if it is not the one given."""
    head: str = ""
    plain_head: str = ""
    """The first lines, which name the caffemodels."""

    @classmethod
    def of(cls, base: Net, observed: Observed, winner: Candidate, options: CalibrationOptions) -> "Delivery":
        """Those of `winner`."""
        calibration = observed.calibration
        made = deliver(base, calibration, winner)
        if not made.changed:
            return cls(made)
        if options.first_conv_force_u8:
            return cls(made, deliver_plain(base, calibration, winner))
        corrected = tuple(name for name in winner.int8_layers if name in calibration.corrected)
        return cls(made, None, corrected, observed.pairs)

    @property
    def text(self) -> str:
        """The file of `made`."""
        return self.head + self.made.text()

    @property
    def sha256(self) -> str:
        """Of that."""
        return text_sha256(self.text)

    @property
    def plain_text(self) -> str:
        """The file of `plain`."""
        assert self.plain is not None, "there is one with -fu only"
        return self.plain_head + self.plain.text()

    def with_weights(self, target: Target, path: Path, weights: Weights) -> "Delivery":
        """Write the caffemodel, if it is not the one given at `path`; returns the delivery that names both.

        `weights`: what was read from there.  Raises OutputError.
        """
        if not self.made.changed:
            return replace(self, head=belonging_line(path.name, file_sha256(path)))
        target.make_folder()
        self.made.write_weights(target.caffemodel, weights)
        digest = file_sha256(target.caffemodel)
        line = belonging_line(target.caffemodel.name, digest)
        plain = "" if self.plain is None else belonging_line(path.name, file_sha256(path))
        return replace(self, weights_sha256=digest, head=line, plain_head=plain)

    def write(self, target: Target, report: CalibrationReport) -> None:
        """Write the nets and both reports.  Raises OutputError."""
        if self.plain is None:
            target.write(self.text, report)
        else:
            write_atomically(target.forced_prototxt, self.text)
            target.write(self.plain_text, report)


def for_folder(net: Net, folder: Path) -> Net:
    """The net as it can be written to `folder`: its relative paths are made absolute if that is not its own folder."""
    if folder.resolve() == net.path.parent.resolve():
        return net
    full = caffe_pb2.NetParameter()
    full.CopyFrom(net.full)
    resolve_sources(full, net.path)
    return net.remade(full)


def text_sha256(text: str) -> str:
    """The hash of a file with this text."""
    return hashlib.sha256(text.encode()).hexdigest()
