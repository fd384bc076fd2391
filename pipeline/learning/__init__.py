"""The one training loop and the checkpoint that every network uses."""
