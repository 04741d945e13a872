"""Public weights: into our modules and back."""
