"""What each layer, alone in INT8 with what it needs, does to the net's output on a few iterations spread over the data.

Only sums over the iterations count, so how the work is divided among the actors does not show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import fsum, inf

import numpy as np
from numpy.typing import NDArray

from distcalib.actors import Job, JobResult
from distcalib.caffe.graph import Blob
from distcalib.calibration.fp32_pass import Fp32Pass
from distcalib.calibration.goal import RANKED_BYTES, Goal
from distcalib.calibration.meter import Meter
from distcalib.calibration.programs import Programs
from distcalib.calibration.ranking_sample import Sample, picked
from distcalib.engine.ranking import RankSpec, output_weights
from distcalib.engine.ranking_split import Pace, Piece, divided, most_pieces, stacked
from distcalib.search import Rank, Ranking
from distcalib.session.backend import rows


@dataclass
class LayerRanking:
    """The rankings of one search, each made once.

    `share_parts`: what candidates have in common is compiled once, and run once up to where they differ.  `saved`: by
    layer what INT8 saves there, in any unit; None: its multiply-adds stand for it.
    """

    meter: Meter
    programs: Programs
    goal: Goal
    fp32: Fp32Pass
    share_parts: bool = True
    saved: Mapping[str, int] | None = None
    _found: dict[Rank, Ranking] = field(default_factory=dict)

    @property
    def distances(self) -> Mapping[str, float]:
        """What the first ranking saw of each layer, in net order; empty before."""
        return next(iter(self._found.values())).alone if self._found else {}

    def is_made(self, request: Rank) -> bool:
        """Whether `of` answers at once."""
        return request in self._found

    def of(self, request: Rank, pace: Pace, label: str = "") -> Ranking:
        """The ranking; `pace`: what passes of this net take, by which the work is divided."""
        if request not in self._found:
            self._found[request] = self._made(request, pace, label)
        return self._found[request]

    def _made(self, request: Rank, pace: Pace, label: str) -> Ranking:
        outputs, layers = self.programs.outputs, request.layers
        sample = self._sample()
        reference, iterations = sample.reference, tuple(sorted(sample.reference))
        phase = f"{label}ranking {len(layers)} layers"
        weights = output_weights(reference)
        plan = self.programs.ranking(layers, self.share_parts)
        most = most_pieces(plan, reference, RANKED_BYTES)
        n_actors, n_together = self.meter.session.n_actors, sample.n_together if self.share_parts else 0
        pieces = stacked(plan, iterations, n_actors, most, n_together) if n_together else []
        are_stacked = bool(pieces)
        if not pieces:
            pace = replace(pace, fp32=pace.fp32 * sample.share_of(self.meter.session.batch))
            pieces = list(divided(plan, iterations, n_actors, most, pace))

        def job(number: int, piece: Piece) -> Job:
            # A resumed run may have other actors, and so other blocks of the iterations of one net: its rows are found.
            values = reference if are_stacked else {k: reference[k] for k in piece.iterations}
            return Job(
                f"rank/{number}",
                RankSpec(piece.candidates, outputs, values, weights, plan.base, plan.cuts, sample.images, are_stacked),
                len(piece.iterations),
                phase,
                order=piece.iterations,
                may_fail=True,
                row_sizes=(len(piece.candidates),) * len(piece.iterations),
            )

        def run(name: str, pieces: Sequence[Piece]) -> list[tuple[Piece, JobResult]]:
            jobs = [job(number, piece) for number, piece in enumerate(pieces)]
            return list(zip(pieces, self.meter.run(name, jobs), strict=True))

        results = run(phase, pieces)
        # One of its candidates is to blame, not those that happen to stand beside it; and of one net all blocks, for
        # alone a candidate has other bits.
        bad = {tuple(one.candidates) for one, result in results if not result.complete and len(one.candidates) > 1}
        if bad:
            results = [(piece, result) for piece, result in results if tuple(piece.candidates) not in bad]
            again = (piece for piece in pieces if tuple(piece.candidates) in bad)
            results += run(f"{phase}, one by one", [alone for piece in again for alone in piece.alone])
        distances = self._distances(layers, results, len(iterations))
        worst = max(distances, key=lambda layer: distances[layer])
        if distances[worst] < inf:
            self.meter.note(f"{phase}: '{worst}' alone in INT8 does most to the output")
        return Ranking(distances, self.saved or self.meter.session.work(layers))

    def _distances(
        self, layers: Sequence[str], results: Sequence[tuple[Piece, JobResult]], n_iterations: int
    ) -> dict[str, float]:
        """By layer the mean over the iterations; infinite of what cannot be run, which the user is told."""
        seen: dict[str, list[float]] = {layer: [] for layer in layers}
        for piece, result in results:
            if not result.complete:
                [name] = piece.candidates
                if inf not in seen[name]:
                    self.meter.note(f"'{name}' alone in INT8 cannot be run: {result.error}")
                seen[name].append(inf)
                continue
            for row in rows(result):
                for name, one in row.distances.items():
                    seen[name].append(one)
        return {name: fsum(sums) / n_iterations for name, sums in seen.items()}

    def _sample(self) -> Sample:
        """What the candidates are compared on."""
        values = {i: tuple(made[blob] for blob in self.programs.outputs) for i, made in self._reference().items()}
        if self.fp32.order is None:
            return Sample(values)
        return picked(values, self.meter.session.batch, self.programs.can_be_of)

    def _reference(self) -> Mapping[int, Mapping[Blob, NDArray[np.float32]]]:
        """What FP32 makes of the ranked iterations: kept from its pass, or made now if the engine showed nothing."""
        if self.fp32.kept:
            return self.fp32.kept
        order, phase = self.goal.ranked, "ranking, FP32"
        job = Job("fp32", self.programs.fp32_outputs(), len(order), phase, order=order)
        [result] = self.meter.run(phase, [job])
        return {i: row.values for i, row in zip(order, rows(result), strict=True)}
