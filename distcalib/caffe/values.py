"""What a graph is made of: the values of a net, its layers, and the steps in which they run."""

from dataclasses import dataclass
from typing import NamedTuple

from distcalib.caffe import caffe_pb2
from distcalib.caffe.steps import Step


class Blob(NamedTuple):
    """One value of a blob: the `version`-th write of `name`, counted from 0."""

    name: str
    version: int

    def __str__(self) -> str:
        return self.name if self.version == 0 else f"{self.name}#{self.version}"


@dataclass(frozen=True, eq=False)
class Node:
    """A layer with the values that it reads and makes; compared by identity."""

    index: int
    layer: caffe_pb2.LayerParameter
    bottoms: tuple[Blob, ...]
    tops: tuple[Blob, ...]

    @property
    def name(self) -> str:
        """The layer's name, unique in a graph."""
        return self.layer.name

    @property
    def type(self) -> str:
        """The layer's Caffe type."""
        return self.layer.type


@dataclass(frozen=True)
class Run:
    """A step of the net as Intel Caffe compiles it, with the values that it reads (None: there is none) and makes.

    A step that sums reads its input, then the residual.
    """

    step: Step
    reads: tuple[Blob | None, ...]
    makes: tuple[Blob, ...]
    copied: bool = False
    """Whether it adds a copy of the residual, which stays as it is."""
