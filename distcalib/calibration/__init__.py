"""`distcalib calibrate`: from a Caffe model to an INT8 prototxt whose accuracy was measured."""
