"""Memory and time estimates of runs on TPUs and GPUs that this machine does not have."""
