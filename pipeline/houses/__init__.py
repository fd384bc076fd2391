"""Houses of Minecraft blocks: a seeded procedural builder, and a checker of what stands."""
