"""The web page of `launch/demo.py`. It needs `pip install "genmask-jax[demo]"`."""
