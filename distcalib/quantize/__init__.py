"""From observed ranges to quantization parameters: fusion, storage types, scales, and the candidates of a search."""
