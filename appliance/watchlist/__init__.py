"""Bundle (format), trusted (what may replace what), match (exhaustive cosine), calibration."""
