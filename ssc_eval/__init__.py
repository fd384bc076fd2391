"""Monocular semantic scene completion: training, testing, protocols."""
