"""The runs that the commands and the API start: evaluate, calibrate, inspect."""
