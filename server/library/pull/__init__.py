"""Downloads: the catalog, the Hugging Face Hub and wheels of a package index."""
