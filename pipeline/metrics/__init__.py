"""How real generated scenes are: distances between feature sets, their encoders, and counts over scenes."""
