"""What a calibration is asked for, checked before anything is opened."""

import math
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

from distcalib.data.limits import check_largest
from distcalib.errors import OptionError
from distcalib.exporters.runtimes import need_onnx
from distcalib.metrics import DEFAULT_AP
from distcalib.plugins import load_plugins
from distcalib.quantize.options import Options
from distcalib.quantize.thresholds import ALGORITHMS, AUTO
from distcalib.search import make_strategy
from distcalib.session.checks import check_ap_version, check_iterations, check_skipping
from distcalib.session.export_options import ExportOptions
from distcalib.session.option_types import convert_options
from distcalib.session.options import SessionOptions, check_actors
from distcalib.session.shipping import check_ship_data

RECOVER = ("auto", "off")
"""When new weights are tried by themselves; equalize and bias_correction ask for them in any case."""
_DECIDE_NOTHING = frozenset({"ship_data", "no_thumbnails"})
"""Switches that say how a run is done, and change no byte of what it finds."""


@dataclass(frozen=True)
class CalibrationOptions(Options):
    """What the flags of the same names say; see `distcalib calibrate --help`.  Raises OptionError.

    `iterations` None: the whole test set, each record once; the report has the number.
    """

    iterations: int | None = None
    blob_name: str | None = None
    accuracy_loss: float = 0.01
    detection: bool = False
    ap_version: str = DEFAULT_AP
    sampling_iterations: int = 10
    sampling_single: bool = False
    calibration_algos: str = "DIRECT"
    bias_correction: bool = False
    equalize: bool = False
    recover: str = "auto"
    count_saved: bool = False
    quantize_model: bool = False
    performance_model: bool = False
    strategy: str = "ranked"
    confidence: float | None = None
    max_candidates: int | None = None
    max_time: float | None = None
    by_time: bool = False
    pareto: bool = False
    skip_bad_records: bool = False
    allow_overwritten: bool = False
    largest_mb: int | None = None
    isa: str = "native"
    data: Path | None = None
    stages: tuple[str, ...] = ()
    level: int = 0
    root: Path | None = None
    out: Path | None = None
    n_actors: int | None = None
    cores_per_actor: int | None = None
    address: str | None = None
    ship_data: bool = False
    no_thumbnails: bool = False
    export: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """The switches that are on, by name, and `root` if a build of Caffe measures."""
        on = tuple(f.name for f in fields(self) if getattr(self, f.name) is True and f.name not in _DECIDE_NOTHING)
        return on if self.root is None else (*on, "root")

    @property
    def sampled(self) -> range:
        """The iterations that ranges are taken from."""
        end = self.sampling_iterations
        return range(end - 1 if self.sampling_single else 0, end)

    @property
    def n_scored(self) -> int:
        """The iterations of a score; 0 of options that leave it to data that nothing has looked at."""
        return self.iterations or 0

    @property
    def iterations_read(self) -> Collection[int]:
        """All that a run looks at."""
        return {*self.sampled, *(() if self.quantize_model else range(self.n_scored))}

    @property
    def makes_weights(self) -> bool:
        """Whether a new caffemodel is asked for by name."""
        return self.equalize or self.bias_correction

    @property
    def may_recover(self) -> bool:
        """Whether new weights are tried where all INT8 loses too much."""
        is_search = not (self.quantize_model or self.performance_model or self.strategy == "none")
        others = self.makes_weights or self.first_conv_force_u8 or self.root is not None
        return self.recover == "auto" and is_search and not others

    @property
    def session(self) -> SessionOptions:
        """What they say of measuring."""
        return SessionOptions.of(self, iterations=self.sampling_iterations if self.quantize_model else self.iterations)

    def __post_init__(self) -> None:
        convert_options(self)
        load_plugins(self.plugins)
        super().__post_init__()
        check_actors(self.n_actors, self.cores_per_actor)
        check_largest(self.largest_mb)
        if self.iterations is not None:
            check_iterations(self.iterations)
        check_iterations(self.sampling_iterations, "-s")
        check_ap_version(self.ap_version, self.root)
        check_skipping(self.skip_bad_records, self.root)
        check_ship_data(self.ship_data, self.root)
        if not 0.0 <= self.accuracy_loss < math.inf:  # that an accuracy loses 1 at the most, is told with its name
            raise OptionError(f"-l {self.accuracy_loss:g}: must be 0 or more; 0.01 is one percentage point")
        if self.calibration_algos not in (*ALGORITHMS, AUTO):
            named = f"{', '.join(ALGORITHMS)} or {AUTO}"
            raise OptionError(f"-a {self.calibration_algos}: unknown; choose {named}")
        if self.recover not in RECOVER:
            raise OptionError(f"--recover {self.recover}: unknown; choose {' or '.join(RECOVER)}")
        if self.quantize_model and self.performance_model:
            raise OptionError(
                "-p and -q exclude each other: one writes scales of 1.0 and one the measured ones; leave one out"
            )
        if self.clx and not self.first_conv_force_u8:
            raise OptionError(
                "-clx: says for which CPU -fu scales weights, and -fu is not given; add it or leave it out"
            )
        if self.first_conv_force_u8 and self.performance_model:
            raise OptionError("-fu: needs scales, and -p writes none; leave out one of them")
        new_weights = " and ".join(
            flag for flag, on in (("--equalize", self.equalize), ("--bias-correction", self.bias_correction)) if on
        )
        if new_weights and self.performance_model:
            raise OptionError(f"{new_weights}: is for measured scales, and -p writes none; leave out one of them")
        if new_weights and self.first_conv_force_u8:
            raise OptionError(
                f"{new_weights}: and -fu each write a caffemodel of their own; give one of them (-1st goes with it)"
            )
        if self.pareto and (self.quantize_model or self.performance_model):
            raise OptionError("--pareto: measures, and -q and -p write what was not measured; leave out one of them")
        if self.export:
            self._check_export()
        make_strategy(self.strategy, self.accuracy_loss)
        if self.confidence is not None and not 0.5 <= self.confidence < 1.0:
            raise OptionError(
                f"--confidence {self.confidence:g}: must be at least 0.5 and below 1; 0.999 errs once in a thousand"
            )
        if self.max_candidates is not None and self.max_candidates < 1:
            raise OptionError(f"--max-candidates {self.max_candidates}: must be at least 1, which is the all-INT8 net")
        if self.max_time is not None and not 0.0 < self.max_time < math.inf:
            raise OptionError(f"--max-time {self.max_time:g}: must be a number of seconds above 0")

    def _check_export(self) -> None:
        """Raise OptionError now for what would keep the files from being made after hours."""
        if "onnx" in self.export:
            need_onnx("--export onnx")
        ExportOptions(to=self.export)
        others = {"-p": self.performance_model, "-r": self.root is not None}
        for flag, is_on in others.items():
            if is_on:
                raise OptionError(f"--export: cannot go with {flag}; leave one out, or use distcalib export afterwards")
