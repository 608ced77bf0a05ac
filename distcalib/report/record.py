"""The result of a calibration as data: what the API returns and what report.json holds, in the form of form.py."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from distcalib.report.bad_records import BadRecords
from distcalib.report.exported import ExportedFile
from distcalib.report.form import grouped, json_text


@dataclass(frozen=True)
class CandidateRecord:
    """One candidate that the result follows from; score and drop are None where a verdict was enough.

    `failed`: why it could not be run.  `likely_drop`: what it loses on the part of the data that decided, where
    that was looked at.
    """

    fp32_layers: tuple[str, ...]
    n_int8_layers: int
    meets: bool
    score: float | None
    drop: float | None
    failed: str | None = None
    likely_drop: float | None = None


@dataclass(frozen=True)
class CurvePoint:
    """A choice of FP32 layers, measured over all iterations; what one actor is predicted to run of it.

    `optimal`: no faster point loses as little or less.
    """

    fp32_layers: tuple[str, ...]
    score: float
    drop: float
    images_per_second: float
    optimal: bool


@dataclass(frozen=True)
class LostImage:
    """An image that FP32 has right and the delivered net wrong, with what finds it in the data.

    `key`: of the record in its database, or its file with the line or row there; "" where the data have no such thing.
    `label`: its class; `fp32_class`, `int8_class`: the class of the highest score.  None where the run was ended before
    that was looked at.
    """

    number: int
    key: str
    label: int | None = None
    fp32_class: int | None = None
    int8_class: int | None = None


@dataclass(frozen=True)
class ClassChange:
    """How many lost images go from the class that FP32 puts first to the one that the delivered net does."""

    fp32_class: int
    int8_class: int
    count: int


@dataclass(frozen=True)
class Changes:
    """The images of which the delivered net says something else than FP32, and whether that is more than chance.

    `lost`: right in FP32 and wrong now; `gained`: the other way round.  `low`, `high`: the 95 % interval of the drop.
    `p_value`: McNemar's exact test, how likely a difference as large is if both are equally good.  `lost_images`: the
    first of those lost, by their number in the order of the data, from 0; `records` says where they are.
    `class_changes`: the most frequent, of `n_classified` lost images, which are all of them or some that lie evenly
    among them.
    """

    n_images: int
    lost: int
    gained: int
    low: float
    high: float
    p_value: float
    lost_images: tuple[int, ...]
    records: tuple[LostImage, ...] = ()
    class_changes: tuple[ClassChange, ...] = ()
    n_classified: int = 0


@dataclass(frozen=True)
class LayerDetail:
    """What the scales of a layer are made from: its input over the sampled iterations, and its weights.

    `threshold`: where the grid of its INT8 input ends; of an FP32 layer where it would, were all layers INT8; None
    where another input is read (-fu).  `sizes`: how many values of one iteration have a size in each of so many bins of
    `bin_width` from 0 on, and `clipped` the part of them beyond the threshold; empty and None where that was not looked
    at.  `channels`: the largest |weight| of each of `n_channels` output channels, batch norms folded in, from the
    widest to the narrowest: all, or some that lie evenly among them.
    """

    input: str
    low: float
    high: float
    threshold: float | None
    clipped: float | None
    bin_width: float
    sizes: tuple[int, ...]
    n_channels: int
    channels: tuple[float, ...]


@dataclass(frozen=True)
class PhaseTime:
    """What a phase of a run took: from its first task to its last in seconds from the very first task on, and
    actor-seconds by kind; `passes`: all of these in units of one FP32 and one all-INT8 pass, None where there was none.

    `n_images`: that went through a net, once for each net.
    """

    name: str
    begin: float
    end: float
    run_seconds: float
    compile_seconds: float
    load_seconds: float
    n_images: int
    passes: float | None


@dataclass(frozen=True)
class PlainRecord:
    """The same net without -fu, to be run with the caffemodel given; its score over all iterations."""

    output: str
    sha256: str
    score: float | None
    drop: float | None


@dataclass(frozen=True)
class CalibrationReport:
    """What was measured and delivered.

    `output` runs with `output_weights` where there are some, else with `weights`.

    Scores are those of `caffe test` for the blob `metric`; `drop` is what INT8 loses, positive is worse.  With nothing
    measured (`--quantize_model`) scores, `drop` and `met` are None.
    """

    model: str
    weights: str
    output: str
    sha256: str
    output_weights: str | None
    output_weights_sha256: str | None
    plain: PlainRecord | None
    equalized_layers: Mapping[str, str]
    """Where --equalize made `output_weights`: the layers that were scaled, each with the one that reads it."""
    corrected_layers: tuple[str, ...]
    """Where --bias-correction made them: the INT8 layers whose bias in `output_weights` is not that of `weights`."""
    all_int8_score_given: float | None
    """With --count-saved, where `output_weights` are new: `all_int8_score` with the weights given."""
    layers_saved: Mapping[str, int]
    """With --count-saved: by what made new weights, in the order in which it applies, how many FP32 layers fewer."""
    metric: str
    lower_is_better: bool
    tolerance: float
    met: bool | None
    ap_version: str | None
    """How precision over recall becomes an AP, where the metric is an mAP."""
    fp32_average_precisions: Mapping[int, float]
    """Of FP32 the AP by class, where the metric is an mAP; of the delivered file `average_precisions`."""
    average_precisions: Mapping[int, float]
    classes_without_objects: tuple[int, ...]
    """Where the metric is an mAP: those of which the data has no object; they have no AP, and count 0 in the mean."""
    class_names: Mapping[int, str]
    """Of a label map, as far as there is one."""
    fp32_score: float | None
    all_int8_score: float | None
    score: float | None
    drop: float | None
    int8_layers: tuple[str, ...]
    fp32_layers: tuple[str, ...]
    refused_layers: Mapping[str, str]
    without_int8_kernel: tuple[str, ...]
    strategy: str
    confidence: float | None
    minimal: bool
    stopped_by: str | None
    weights_channel: str
    flags: tuple[str, ...]
    calibration_algo: str
    algorithms: Mapping[str, str]
    """With `-a auto` the algorithm by blob, of those that scales are made from; else empty."""
    output_errors: Mapping[str, float]
    """With `-a auto` the error at the output on the sampled iterations: of each algorithm for all blobs, of the choice
    as `auto`.
    """
    n_iterations: int
    n_sampled: int
    batch: int
    candidates: tuple[CandidateRecord, ...]
    distances: Mapping[str, float]
    """By layer that was ranked: what it does to the net's output, alone in INT8; infinite if it could not be run."""
    isa: str
    """The CPU whose integers were computed."""
    way: str
    """How: `native`, by INT8 kernels, or `emulated`, in FP32 kernels."""
    kernels: str
    """The widest instruction set that the kernels used, oneDNN's name."""
    versions: Mapping[str, str]
    n_actors: int
    cores_per_actor: int
    seconds: float
    cost_passes: float | None
    images_per_second: Mapping[str, float]
    pareto: tuple[CurvePoint, ...] = ()
    """With --pareto: choices from the fastest to the slowest."""
    bad_records: BadRecords | None = None
    """With --skip-bad-records: the records that no score and no range is of."""
    n_retired: int = 0
    """Actors that were given up in the run because memory ran out on their nodes; not among `n_actors`."""
    image_order: str = ""
    """In which order the search took the images: `hard first`, or `natural` and why."""
    warnings: tuple[str, ...] = ()
    """What makes the verdict worth less than it seems: a score at chance, a tolerance of half of all, data not seen."""
    exported: tuple[ExportedFile, ...] = ()
    """With --export: the files of the delivered net, measured; their speeds are `exported_images_per_second`."""
    exported_images_per_second: Mapping[str, float] = field(default_factory=dict)
    """Of one core, by runtime and FP32 or INT8, the inference alone."""
    n_rows_from_journal: int = 0
    """Rows of results that an earlier run in the folder had measured, and this one did not measure again."""
    recover: str = "off"
    """`auto`: new weights were tried where all INT8 lost too much."""
    quantizable_layers: tuple[str, ...] = ()
    """The INT8 and the FP32 ones, in net order."""
    layer_details: Mapping[str, LayerDetail] = field(default_factory=dict)
    """By layer that can be INT8, in net order: what its scales are made from."""
    changes: Changes | None = None
    """Where images are scored one by one: what INT8 changed."""
    core_images_per_second: Mapping[str, float] = field(default_factory=dict)
    """Of one core, the inference alone, at the end of the run: `FP32`, `all INT8`, `delivered`."""
    layer_seconds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By layer that multiplies, and "" for all else, the seconds of one iteration in an actor: in FP32, and in the net
    with all INT8 that can be.
    """
    cpus: Mapping[str, int] = field(default_factory=dict)
    """How many machines have which CPU."""
    candidate_shares: tuple[float, ...] = ()
    """Of each candidate the part of the data that was measured of it."""
    fp32_class_accuracies: Mapping[int, float] = field(default_factory=dict)
    """Of FP32 the accuracy by class, where the metric is an Accuracy with a second top."""
    class_accuracies: Mapping[int, float] = field(default_factory=dict)
    """The same of the delivered file."""
    classes_without_labels: tuple[int, ...] = ()
    """Where there are such: the classes of which no label counts."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """This run as a command, and what may be run next with its files: `calibrate`, `evaluate`, `export`."""
    phases: tuple[PhaseTime, ...] = ()
    """Of what was not in the journal, in the order in which they began."""
    actor_spans: tuple[tuple[int, int, float, float, float], ...] = ()
    """Actor, number of the phase, begin and end in seconds, and how many seconds between them the actor worked; of at
    most 64 actors, which lie evenly among all.
    """
    utilisation: float | None = None
    """The part of the time from the first task to the last in which the actors worked."""
    thumbnails: Mapping[int, str] = field(default_factory=dict)
    """Small pictures of lost images by their number, as data URIs."""

    def to_json(self) -> str:
        """The text of report.json: form.py."""
        return json_text(grouped(asdict(self)))

    @property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        kept = f"{len(self.int8_layers)} of {len(self.int8_layers) + len(self.fp32_layers)} quantizable layers in INT8"
        if self.score is None or self.fp32_score is None or self.drop is None:
            return f"Quantized, not measured: {kept}; {self._wrote}"
        word = "met" if self.met else "NOT met"
        change = drop_text(self.drop, self.lower_is_better)
        scores = (
            f"{score_name(self.metric, self.lower_is_better)} {self.score:.6g} against {self.fp32_score:.6g} in FP32"
        )
        early = "" if self.stopped_by is None else f", search ended by {self.stopped_by}"
        return f"Tolerance {self.tolerance:g} {word}: {scores} ({change}) with {kept}{early}; {self._wrote}"

    @property
    def _wrote(self) -> str:
        if self.output_weights is not None:
            return f"wrote {self.output} and {self.output_weights}"
        idle = "first_conv_force_u8" in self.flags
        said = "-fu changed nothing, since the first convolution fell back to FP32; " if idle else ""
        return f"{said}wrote {self.output}"


def score_name(metric: str, lower_is_better: bool) -> str:
    """The score's blob, and which way is up where that is down."""
    return f"{metric} (lower is better)" if lower_is_better else metric


def drop_text(drop: float, lower_is_better: bool = False) -> str:
    """What is lost, in words: an accuracy drops or gains, a loss rises or falls."""
    worse, better = ("rise", "fall") if lower_is_better else ("drop", "gain")
    if drop == 0.0:
        return f"no {worse}"
    return f"{worse} {drop:.6g}" if drop > 0.0 else f"{better} {-drop:.6g}"


@dataclass(frozen=True)
class Evaluation:
    """What `caffe test` says of a net: the mean over the iterations of each output blob, by name.

    `n_values` is how many numbers of one iteration each of them is a mean of; `loss_weights` has the weight of each
    that is a loss.
    """

    model: str
    scores: Mapping[str, float]
    average_precisions: Mapping[str, Mapping[int, float]]
    """Of each blob that is an mAP, the AP by class, taken as `ap_version` says."""
    classes_without_objects: Mapping[str, tuple[int, ...]]
    """Of each blob that is an mAP, the classes of which the data has no object: they count 0."""
    ap_version: str
    class_names: Mapping[int, str]
    """Of a label map, as far as there is one."""
    n_values: Mapping[str, int]
    loss_weights: Mapping[str, float]
    loss: float
    n_iterations: int
    batch: int
    int8_layers: tuple[str, ...]
    without_int8_kernel: tuple[str, ...]
    isa: str
    """The CPU whose integers were computed."""
    way: str
    """How: `native`, by INT8 kernels, or `emulated`, in FP32 kernels."""
    kernels: str
    """The widest instruction set that the kernels used, oneDNN's name."""
    versions: Mapping[str, str]
    n_actors: int
    seconds: float
    images_per_second: float
    bad_records: BadRecords | None = None
    """With --skip-bad-records: the records that no score is of."""
    n_retired: int = 0
    """Actors that were given up because memory ran out on their nodes; not among `n_actors`."""
    warnings: tuple[str, ...] = ()
    """What makes a score worth less than it seems."""
    segmentations: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of each blob that is a mean IoU: that, pixel accuracy and mean recall, of the pixels of all iterations."""
    class_accuracies: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Of each second top of an Accuracy: by class the part of its labels in all iterations that is found."""
    classes_without_labels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of the same tops, the classes of which no label counts: they have no accuracy."""

    def to_json(self) -> str:
        """The evaluation for machines: keys in the order of the fields."""
        return json_text(asdict(self))
