"""One decision per track, one alert per track and subject, kept until acknowledged."""
