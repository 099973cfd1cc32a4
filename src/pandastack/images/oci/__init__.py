"""Images of registries: their manifests and settings, read strictly, and the programs that fetch and unpack them."""
