"""The model files on disk: headers, the models folder, downloads."""
