"""In the API process: spawning workers, watching them, and talking to them."""
