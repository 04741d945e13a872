"""Public raw data, as its publishers lay it out, to `Plan`s of what to prepare; one file a layout."""
