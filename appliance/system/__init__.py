"""What the rooms stand on: workers, clock, erasure, health."""
