"""The vocabulary everyone speaks. Imports numpy, jaxtyping (annotations) and the standard library only."""
