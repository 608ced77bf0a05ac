"""What a calibration is asked for, checked before anything is opened."""

from dataclasses import dataclass, fields
from pathlib import Path

from distcalib.errors import OptionError
from distcalib.quantize.scales import Options
from distcalib.quantize.thresholds import ALGORITHMS, AUTO
from distcalib.run.checks import check_iterations
from distcalib.search import make_strategy


@dataclass(frozen=True)
class CalibrationOptions(Options):
    """What the flags of the same names say; see `distcalib calibrate --help`.  Raises OptionError."""

    iterations: int = 10
    blob_name: str | None = None
    accuracy_loss: float = 0.01
    sampling_iterations: int = 10
    sampling_single: bool = False
    calibration_algos: str = "DIRECT"
    quantize_model: bool = False
    performance_model: bool = False
    strategy: str = "greedy"
    isa: str = "native"
    data: Path | None = None
    root: Path | None = None
    out: Path | None = None
    n_actors: int | None = None
    cores_per_actor: int = 1
    address: str | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The switches that are on, by name, and `root` if a build of Caffe measures."""
        on = tuple(field.name for field in fields(self) if getattr(self, field.name) is True)
        return on if self.root is None else (*on, "root")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_iterations(self.iterations)
        check_iterations(self.sampling_iterations, "-s")
        if not 0.0 <= self.accuracy_loss <= 1.0:
            raise OptionError(f"-l {self.accuracy_loss:g}: is outside [0, 1]; 0.01 tolerates a loss of one point")
        if self.calibration_algos not in (*ALGORITHMS, AUTO):
            named = f"{', '.join(ALGORITHMS)} are, and {AUTO} chooses among them"
            raise OptionError(f"-a {self.calibration_algos}: is no algorithm; {named}")
        make_strategy(self.strategy, self.accuracy_loss)
