"""Candidates as programs: all that a search needs to know of a net."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from distcalib.caffe.graph import Blob
from distcalib.calibration.candidate_net import deliver, deliver_plain
from distcalib.engine.net import Net
from distcalib.engine.ranking import in_chunks
from distcalib.engine.score_inputs import score_inputs
from distcalib.engine.spec import NetSpec, Outputs, Row
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.scales import Calibration
from distcalib.session.evaluate import running_int8, without_kernel

Chunks = Sequence[tuple[int, Mapping[str, NetSpec]]]
"""Where each chunk of a ranking begins to differ from FP32, and its candidates by name; see in_chunks."""


class Programs(Protocol):
    """Makes programs of candidates; NetPrograms is what does it for real nets."""

    @property
    def start(self) -> Candidate:
        """Every layer INT8 that can be."""
        ...

    @property
    def outputs(self) -> tuple[Blob, ...]:
        """The values that a ranking compares."""
        ...

    def spec(self, candidate: Candidate) -> NetSpec:
        """What scores the candidate."""
        ...

    def plain(self, candidate: Candidate) -> NetSpec:
        """What scores it without -fu."""
        ...

    def of(self, calibration: Calibration) -> "Programs":
        """Those of another calibration."""
        ...

    def fp32_outputs(self) -> NetSpec:
        """What hands out `outputs` of the FP32 net."""
        ...

    def chunks(self, layers: Sequence[str], share: bool) -> Chunks:
        """By layer the smallest candidate in which it is INT8, in the chunks that a ranking runs them in."""
        ...

    def without_kernel(self, spec: NetSpec, found: Sequence[Row]) -> tuple[str, ...]:
        """INT8 layers of `spec` that ran without an INT8 kernel, by what its rows tell."""
        ...


@dataclass(frozen=True)
class NetPrograms:
    """Those of `base` as `calibration` quantizes it, compared by what the score `metric` is made from."""

    base: Net
    calibration: Calibration
    metric: str

    @property
    def start(self) -> Candidate:
        """Every layer INT8 that can be."""
        return self.calibration.quantizer.space.all_int8

    @property
    def outputs(self) -> tuple[Blob, ...]:
        """What the layer of the score reads."""
        return score_inputs(self.base, self.metric)

    def spec(self, candidate: Candidate) -> NetSpec:
        """What is measured of a candidate is made from what would be written of it."""
        return deliver(self.base, self.calibration, candidate).spec()

    def plain(self, candidate: Candidate) -> NetSpec:
        """What is measured beside it."""
        return deliver_plain(self.base, self.calibration, candidate).spec()

    def of(self, calibration: Calibration) -> "NetPrograms":
        """Those of the same net with other scales or weights."""
        return replace(self, calibration=calibration)

    def fp32_outputs(self) -> NetSpec:
        """What hands out `outputs` of the FP32 net."""
        return self.base.spec(outputs=Outputs(self.outputs))

    def chunks(self, layers: Sequence[str], share: bool) -> Chunks:
        """By the first layer in which each differs from FP32.

        Without -fu, since its net reads other data where the first convolution is INT8: a chunk reads its data once.
        """
        space = self.calibration.quantizer.space
        made = {layer: deliver_plain(self.base, self.calibration, space.smallest(layer)) for layer in layers}
        return in_chunks(self.base.spec(), {layer: one.spec() for layer, one in made.items()}, share)

    def without_kernel(self, spec: NetSpec, found: Sequence[Row]) -> tuple[str, ...]:
        """INT8 layers of `spec` that ran without an INT8 kernel, by what its rows tell."""
        return without_kernel(running_int8(spec.graph), found)
