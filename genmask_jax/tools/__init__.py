"""Around training: web page, reports, benchmarks, analysis of latents, estimates for absent devices."""
