"""Scene generators, one method a file, all behind protocol.Generator."""
