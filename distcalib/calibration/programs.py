"""Candidates as programs: all that a search needs to know of a net."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from distcalib.caffe.graph import Blob
from distcalib.calibration.candidate_net import deliver, deliver_plain, plain_spec
from distcalib.engine.net import Net
from distcalib.engine.ranking import Plan, can_be_of, planned
from distcalib.engine.score_inputs import score_inputs
from distcalib.engine.spec import NetSpec, Outputs, Row
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.scales import Calibration
from distcalib.session.evaluate import running_int8, without_kernel


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

    def ranking(self, layers: Sequence[str], share: bool) -> Plan:
        """By layer the smallest candidate in which it is INT8, beside FP32; see `planned`."""
        ...

    def can_be_of(self, n: int) -> bool:
        """Whether a ranking may take batches of `n` images, other than the net's."""
        ...

    def without_kernel(self, spec: NetSpec, found: Sequence[Row]) -> tuple[str, ...]:
        """INT8 layers of `spec` that ran without an INT8 kernel, by what its rows tell."""
        ...


@dataclass(frozen=True)
class NetPrograms:
    """Those of `base`, whose values have `shapes`, as `calibration` quantizes it, compared by what the score
    `metric` is made from."""

    base: Net
    calibration: Calibration
    metric: str
    shapes: Mapping[Blob, tuple[int, ...]]

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

    def ranking(self, layers: Sequence[str], share: bool) -> Plan:
        """By layer the smallest candidate in which it is INT8, beside FP32 with the same weights.

        Without -fu, since its net reads other data where the first convolution is INT8: a ranking reads its data once.
        """
        space = self.calibration.quantizer.space
        specs = {layer: plain_spec(self.base, self.calibration, space.smallest(layer)) for layer in layers}
        return planned(self.base.spec(changed=self.calibration.equalized), specs, self.outputs, share)

    def can_be_of(self, n: int) -> bool:
        """Whether the net can be built so."""
        return can_be_of(self.base.graph, self.shapes, n, self.base.name)

    def without_kernel(self, spec: NetSpec, found: Sequence[Row]) -> tuple[str, ...]:
        """INT8 layers of `spec` that ran without an INT8 kernel, by what its rows tell."""
        return without_kernel(running_int8(spec.graph), found)
