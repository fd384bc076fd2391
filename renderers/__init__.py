"""From voxels and surfaces to pictures, scans, labels and masks."""
