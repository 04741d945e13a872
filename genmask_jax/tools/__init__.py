"""What surrounds training: the demo page, reports, benchmarks, and estimates for absent devices."""
