"""How scales are made: the predecessor's flags."""

from dataclasses import dataclass

from distcalib.errors import OptionError

QUANTIZED_BY = "which {} quantizes"
"""The end of a reason that a flag takes away: `distcalib init` names the flag."""


@dataclass(frozen=True)
class Options:
    """How scales are made; each is the predecessor's flag of the same name."""

    weights_channel: str = "single"
    """`single`: one weight scale per layer; `multiple`: one per output channel."""
    enable_1st_conv: bool = False
    """Quantize the first convolution too."""
    first_conv_force_u8: bool = False
    """Quantize it on u8 input, which the data layer makes."""
    clx: bool = False
    """With first_conv_force_u8: the target has VNNI, so the weights' scales are not halved."""
    fc_int8: bool = False
    """Quantize InnerProduct too."""
    unsigned_range: bool = False
    """255 in place of 127 in scale_out of convolutions without ReLU: finer steps, and half of the range clipped."""
    concat_use_fp32: bool = False
    """Convolutions that feed a Concat get FP32 output."""
    unify_concat_scales: bool = False
    """Convolutions that feed one Concat share the smallest scale_out."""
    disable_force_fp32: bool = False
    """INT8 output even where no INT8 consumer follows."""
    disable_cac_unify: bool = False
    """A convolution behind an average pooling takes its own range, not the scale of the convolution before."""

    keep_int8: tuple[str, ...] = ()
    """Globs of layers that a search must not return to FP32."""
    keep_fp32: tuple[str, ...] = ()
    """Globs of layers that stay FP32."""

    def __post_init__(self) -> None:
        if self.weights_channel not in ("single", "multiple"):
            raise OptionError(f"--weights_channel {self.weights_channel}: unknown; choose single or multiple")
