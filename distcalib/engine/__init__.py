"""A Caffe net as a compiled OpenVINO program, and the worker that runs it in an actor."""
