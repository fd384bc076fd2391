"""Images from views: control images, prompts, ControlNet, structure checks; the only importer of diffusers."""
