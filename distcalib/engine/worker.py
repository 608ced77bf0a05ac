"""What an actor does: compile a net, run iterations of it, and return a row of scores, ranges or values for each.

A row depends on the program and the iteration alone, never on the actor or on what it ran before; that is what lets
rows from any actor, in any order, be merged into the same bytes.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import Weights, shared_params
from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.data import DATA_TYPES, Index, MemoryBudget, Shipped, Source, Watched, files_of, open_source
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.engine.batch import Batch, read_batch, read_images
from distcalib.engine.builder import build_model
from distcalib.engine.error_builder import build_errors
from distcalib.engine.keys import key_of, source_of
from distcalib.engine.loaded import Loaded, Sound, kept_of
from distcalib.engine.program import ElsewhereProgram, Program, compile_program
from distcalib.engine.ranking import BaseParts, RankProgram, RankSpec, compile_ranking
from distcalib.engine.ranking_stack import StackProgram, compile_stack
from distcalib.engine.soundness import Soundness, is_fp32
from distcalib.engine.spec import ElsewhereSpec, NetSpec, Row
from distcalib.engine.timing import TimedProgram, TimingSpec
from distcalib.errors import UnsupportedError
from distcalib.layers import Blobs, FileBlobs
from distcalib.metrics import (
    HOST_TYPES,
    OF_LOSSES,
    SCORE_TYPES,
)

Array = NDArray[np.float32]
_Local = RankProgram | StackProgram | TimedProgram
_LOCAL = bytes(8)  # before a spec that each actor compiles; a program begins with its header's size, which is never 0


@dataclass(frozen=True)
class Setting:
    """What all programs of a run share: where the net is, its weights, and the way into its data."""

    prototxt: Path
    weights: Weights
    """As the net's layers see them: caffe.share."""
    weights_name: str
    indexes: Mapping[str, Index | None]
    arrays: Mapping[str, NDArray[np.generic]] | None = None
    """What feeds Input layers, by top."""
    skip_bad: bool = False
    """Whether records that cannot be read are left out."""
    shipped: Shipped | None = None
    """What was sent of the data; None: actors open it themselves."""
    missing: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """By layer: images that are left out wherever they are looked for, see open_source."""
    watched: Watched | None = None
    """The files of the run, as the driver saw them."""
    plugins: tuple[str, ...] = ()
    """Modules that an actor imports first."""

    def check_files(self, layer: str) -> None:
        """Raise DataError if what `layer` reads here is not what the driver saw."""
        if self.watched is not None and self.shipped is None:
            self.watched.check(layer)

    def blobs_of(self, spec: NetSpec) -> Blobs:
        """The weights as the layers of `spec` read them."""
        shared = shared_params(spec.layers)
        return FileBlobs({**self.weights, **spec.changed}, self.weights_name, shared)


class NetWorker:
    """Runs nets on the cores of one actor; the Worker of the pool."""

    def __init__(self, setting: Setting, n_threads: int, kept_bytes: int = 0, arithmetic: Arithmetic = NATIVE) -> None:
        """`kept_bytes`: what decoded images may take that are kept for the next program.  `arithmetic`: of INT8
        layers.
        """
        self._setting = setting
        self._n_threads = n_threads
        self._arithmetic = arithmetic
        self._room = MemoryBudget(kept_bytes)
        self._sources: dict[bytes, Source] = {}
        self._loaded: dict[str, Loaded] = {}
        self._local: dict[str, _Local] = {}
        self._base: BaseParts | None = None  # of the pieces of a ranking, until something else is loaded

    def compile(self, spec: NetSpec | RankSpec | TimingSpec | ElsewhereSpec) -> NDArray[np.uint8]:
        """The program of `spec` as bytes; what is no NetSpec travels as it is, and is made ready by load."""
        if not isinstance(spec, NetSpec):
            return np.frombuffer(_LOCAL + pickle.dumps(spec), np.uint8)
        self._base = None
        graph = spec.graph
        refuse_host_feeding(graph, spec.where)
        shapes = self._shapes(graph)
        blobs, sampling = self._setting.blobs_of(spec), spec.sampling
        build = partial(build_model, graph, blobs, shapes, spec.where, arithmetic=self._arithmetic)
        looks = spec.outputs is None and not (sampling and (sampling.errors or sampling.values)) and is_fp32(graph)
        sound = self._soundness(spec) if looks else None
        if sampling is not None and sampling.sound and is_fp32(graph):
            (sound or self._soundness(spec)).refuse(self._first_batch(graph), 0)
        watched = () if sound is None else sound.watched
        if spec.outputs is not None:
            made = [blob for blob in spec.outputs.blobs if graph.producer[blob].type not in DATA_TYPES]
            built = build(keep=made)
        elif sampling is None:
            built = build(watched=watched)
        elif sampling.errors:
            built = build_errors(graph, blobs, shapes, spec.where, sampling.taps, self._arithmetic)
        elif sampling.values:
            built = build(keep=sampling.taps)
        else:
            keep = None if sampling.scored else ()
            built = build(keep=keep, taps=sampling.taps, by_channel=sampling.by_channel, watched=watched)
        return compile_program(built, spec, self._n_threads, sound is None or sound.is_proven)

    def _soundness(self, spec: NetSpec) -> Soundness:
        """What is to be looked at of the FP32 net of `spec`."""
        graph = spec.graph
        return Soundness(graph, self._setting.blobs_of(spec), self._shapes(graph), spec.where, self._n_threads)

    def load(self, key: str, blob: NDArray[np.uint8]) -> None:
        """Import a program that some actor compiled, or compile a ranking or timing."""
        if blob[: len(_LOCAL)].tobytes() == _LOCAL:
            spec = pickle.loads(blob[len(_LOCAL) :].tobytes())
            if not isinstance(spec, RankSpec):
                self._base = None
            if isinstance(spec, ElsewhereSpec):
                self._take(key, ElsewhereProgram(spec, self._n_threads))
            else:
                self._local[key] = self._compile_local(spec)
            return
        self._base = None
        self._take(key, Program(blob, self._n_threads))

    def _take(self, key: str, program: Program | ElsewhereProgram) -> None:
        graph, made = program.header.spec.graph, set(program.header.outputs)
        on_host = [node for node in graph if node.type in HOST_TYPES and made.isdisjoint(node.tops)]
        spec = program.header.spec
        looks = isinstance(program, Program) and spec.outputs is None and is_fp32(graph)
        sound = Sound(partial(self._soundness, spec)) if looks else None
        self._loaded[key] = Loaded(program, graph, on_host, files_of(self._setting.shipped), sound, self._namer(graph))

    def run(self, key: str, iterations: Sequence[int]) -> list[Row]:
        """One row an iteration; of a program that samples, one row a block of iterations."""
        if key in self._local:
            return self._run_local(self._local[key], iterations)
        loaded = self._loaded[key]
        spec = loaded.program.header.spec
        if spec.images is None:
            batch = self._batches(loaded.graph, loaded.takes_images)
        else:
            batch = self._picked(loaded.graph, spec.images)
        sampling, outputs = spec.sampling, spec.outputs
        if outputs is not None:
            return [loaded.hand_out(outputs, batch(outputs.first + i)) for i in iterations]
        if sampling is None:
            return [loaded.score(batch(i), kept_of(spec, i)) for i in iterations]
        if sampling.scored:
            numbers = [i for row in iterations for i in sampling.iterations_of(row)]
            return [loaded.score(batch(i), kept_of(spec, i), sampling) for i in numbers]
        observe_block = loaded.observe_errors if sampling.errors else loaded.observe
        return [observe_block(sampling, map(batch, sampling.iterations_of(i))) for i in iterations]

    def drop(self, key: str) -> None:
        """Forget a program."""
        self._loaded.pop(key, None)
        self._local.pop(key, None)

    def _compile_local(self, spec: RankSpec | TimingSpec) -> _Local:
        setting, n_threads = self._setting, self._n_threads
        if isinstance(spec, RankSpec):
            shapes = spec.sized(self._shapes(spec.base.graph))
            if spec.stacked:
                return compile_stack(spec, setting.blobs_of, shapes, n_threads, self._arithmetic)
            if self._base is None or not self._base.is_of(spec, shapes):
                self._base = BaseParts(spec, setting.blobs_of, shapes, n_threads, self._arithmetic)
            return compile_ranking(spec, self._base)
        # Native whatever the arithmetic is: it is the time of INT8 kernels that is asked for, not what they answer.
        net, graph = spec.net, spec.net.graph
        built = build_model(graph, setting.blobs_of(net), self._shapes(graph), net.where)
        return TimedProgram(net, built, n_threads)

    def _run_local(self, program: _Local, iterations: Sequence[int]) -> list[Row]:
        if isinstance(program, TimedProgram):
            batch = self._batches(program.spec.graph)
            batches = map(batch, iterations)
            timed = [(*program.seconds(b.tops), b.left_out) for b in batches]
            return [Row({}, (), {}, whole_seconds=t, seconds=by_layer, left_out=out) for t, by_layer, out in timed]
        graph, images = program.spec.base.graph, program.spec.images
        batch = self._batches(graph) if images is None else self._picked(graph, images)
        numbered = zip(iterations, map(batch, iterations), strict=True)
        return [Row({}, (), {}, distances=program.distances(i, b), left_out=b.left_out) for i, b in numbered]

    def _shapes(self, graph: Graph) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the data layers' tops."""
        return {top: shape for node in data_nodes(graph) for top, shape in self._source(node).shapes.items()}

    def _batches(self, graph: Graph, with_images: bool = False) -> Callable[[int], Batch]:
        """What the data layers give, by iteration."""
        sources = [self._source(node) for node in data_nodes(graph)]
        return lambda iteration: read_batch(sources, iteration, self._setting.skip_bad, with_images)

    def _picked(self, graph: Graph, images: NDArray[np.int32]) -> Callable[[int], Batch]:
        """The same where an iteration is a row of `images`."""
        sources = [self._source(node) for node in data_nodes(graph)]
        return lambda iteration: read_images(sources, images[iteration].tolist(), iteration)

    def _first_batch(self, graph: Graph) -> Mapping[str, Array]:
        """The tops in iteration 0, from sources that keep nothing: the actor may never be asked for it again."""
        sources = [self._opened(node, None) for node in data_nodes(graph)]
        try:
            return read_batch(sources, 0, self._setting.skip_bad).tops
        finally:
            for source in sources:
                source.close()

    def _namer(self, graph: Graph) -> Callable[[Blob, int], str]:
        """Says where the record is found that a value, such as labels, is of."""
        return lambda blob, record: key_of(node := source_of(graph, blob), self._source(node), record)

    def _source(self, node: Node) -> Source:
        """The data layer's source, opened once for all programs that read it."""
        identity = node.layer.SerializeToString(deterministic=True)
        if identity not in self._sources:
            self._sources[identity] = self._opened(node, self._room)
        return self._sources[identity]

    def _opened(self, node: Node, room: MemoryBudget | None) -> Source:
        setting = self._setting
        setting.check_files(node.name)  # before and after: it may be replaced in between
        source = open_source(
            node.layer,
            setting.prototxt,
            setting.indexes.get(node.name),
            setting.arrays,
            setting.skip_bad,
            setting.shipped,
            room,
            setting.missing.get(node.name),
            partial(setting.check_files, node.name),
        )
        setting.check_files(node.name)
        return source


def data_nodes(graph: Graph) -> Sequence[Node]:
    """The data layers, in net order."""
    return [node for node in graph if node.type in DATA_TYPES]


def refuse_host_feeding(graph: Graph, where: str) -> None:
    """Raise UnsupportedError where a layer reads what a loss or accuracy makes: those are ends of the net here.

    Detections are read by what scores them, losses by Eltwise and Power; Silence may read all.
    """
    bad = [
        f"layer '{reader.name}' ({reader.type}) reads blob '{top}', made by '{node.name}' ({node.type})"
        for node in graph
        if node.type in HOST_TYPES
        for top in node.tops
        for reader in graph.consumers.get(top, ())
        if reader.tops
        and (node.type in SCORE_TYPES or reader.type not in SCORE_TYPES)
        and reader.type not in OF_LOSSES.values()
    ]
    if bad:
        raise UnsupportedError(
            f"{where}: " + "; ".join(bad) + "; remove that reader, losses, accuracies and detections are ends here"
        )
