"""The web page of `launch/demo.py`. It needs requirements-demo.txt (`pip install "genmask-jax[demo]"`)."""
