"""Mathematics shared by generators: corruption processes, their schedules, samplers and backbones."""
