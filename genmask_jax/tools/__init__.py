"""What surrounds training: the web page, reports, benchmarks, analysis of latents, estimates for absent devices."""
