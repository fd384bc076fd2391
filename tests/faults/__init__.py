"""Faults put to real builds from outside: kills, a lost worker, a full disk, a flipped byte."""
