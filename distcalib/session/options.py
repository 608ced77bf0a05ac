"""What every command that measures is asked for, checked before anything is opened."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from distcalib.caffe.phase import State
from distcalib.data.limits import check_largest
from distcalib.errors import OptionError
from distcalib.metrics import DEFAULT_AP
from distcalib.plugins import load_plugins
from distcalib.session.checks import check_ap_version, check_iterations, check_skipping
from distcalib.session.option_types import convert_options
from distcalib.session.shipping import check_ship_data

_OptionsT = TypeVar("_OptionsT", bound="SessionOptions")


@dataclass(frozen=True)
class SessionOptions:
    """On what, by what and on how many actors a net is measured.  Raises OptionError.

    `iterations`: batches of the data that are read; None: the whole test set, each record once.
    `data`: an .npz, .npy or .h5 file of arrays for Input layers.
    `stages`, `level`: the state of the TEST phase, as the flags of `caffe test` set it.
    `skip_bad_records`: leave out records that cannot be read.  `ship_data`: send the records to the actors, which open
    no data then.  `isa`: the CPU whose INT8 arithmetic is computed.  `root`: a build folder of Intel Caffe, which
    measures in place of the embedded engine.  `n_actors` None: as many as there are cores for.  `cores_per_actor`:
    physical cores; None: as memory allows.  `address`: of a Ray cluster, all nodes of which measure.  `plugins`:
    modules that add layers, scores or data sources, which are imported in every actor, too.
    """

    iterations: int | None = None
    data: Path | None = None
    stages: tuple[str, ...] = ()
    level: int = 0
    skip_bad_records: bool = False
    ship_data: bool = False
    isa: str = "native"
    root: Path | None = None
    n_actors: int | None = None
    cores_per_actor: int | None = None
    address: str | None = None
    plugins: tuple[str, ...] = ()

    @classmethod
    def of(cls: type[_OptionsT], asked: object, **own: Any) -> _OptionsT:
        """Those of `asked`, the arguments of a command or CalibrationOptions, by their names; `own` come first."""
        names = [one.name for one in fields(cls) if one.name not in own and hasattr(asked, one.name)]
        return cls(**own, **{name: getattr(asked, name) for name in names})

    @property
    def state(self) -> State:
        """Which layers of the TEST phase take part."""
        return State(self.stages, self.level)

    def __post_init__(self) -> None:
        convert_options(self)
        load_plugins(self.plugins)
        if self.iterations is not None:
            check_iterations(self.iterations)
        check_skipping(self.skip_bad_records, self.root)
        check_ship_data(self.ship_data, self.root)
        check_actors(self.n_actors, self.cores_per_actor)


@dataclass(frozen=True)
class EvaluationOptions(SessionOptions):
    """What `evaluate` is asked for; see `distcalib evaluate --help` for the flags of the same names.

    `detection`: the net must have a layer that is scored by mAP.  `ap_version`: how precision over recall becomes an
    AP: 11point, MaxIntegral or Integral.  `largest_mb`: megabytes that one image, row or array may take unpacked; None:
    1024, or what DISTCALIB_LARGEST_MB says.  Raises OptionError.

        distcalib.EvaluationOptions(n_actors=4)
    """

    detection: bool = False
    ap_version: str = DEFAULT_AP
    largest_mb: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_largest(self.largest_mb)
        check_ap_version(self.ap_version, self.root)


def check_actors(n_actors: int | None, cores_per_actor: int | None) -> None:
    """Raise OptionError for fewer than one."""
    if n_actors is not None and n_actors < 1:
        raise OptionError(f"--actors {n_actors}: must be at least 1; leave it out to use every core")
    if cores_per_actor is not None and cores_per_actor < 1:
        raise OptionError(f"--cores-per-actor {cores_per_actor}: must be at least 1; or leave it out")
