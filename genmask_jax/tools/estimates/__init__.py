"""Memory and time estimates for runs on TPUs that are not available here."""
